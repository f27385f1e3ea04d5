"""The compared servers, with their commands and request formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .scenarios import Samples, Scenario

Request = Callable[[Scenario, Samples, int], object]


def _make_inputs(scenario: Scenario, samples: Samples, number: int) -> object:
    count = len(samples.rows)
    rows = [samples.rows[(number + at) % count] for at in range(scenario.rows)]
    if not scenario.records:
        return {"inputs": rows}
    return {"inputs": [dict(zip(samples.columns, row, strict=True)) for row in rows]}


def _make_mlflow_body(scenario: Scenario, samples: Samples, number: int) -> object:
    rows = _make_inputs(scenario, samples, number)["inputs"]  # type: ignore[index]
    return {"dataframe_records": rows} if scenario.records else {"inputs": rows}


def _make_open_inference_body(scenario: Scenario, samples: Samples, number: int) -> object:
    """The Open Inference Protocol: one tensor, or one a column for MLServer's pandas codec."""
    row = samples.rows[number]
    if not scenario.records:
        rows = _make_inputs(scenario, samples, number)["inputs"]  # type: ignore[index]
        data = [value for each in rows for value in each]
        return {"inputs": [{"name": "inputs", "shape": [len(rows), len(row)], "datatype": "FP64", "data": data}]}
    columns = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
        for name, value in zip(samples.columns, row, strict=True)
    ]
    return {"parameters": {"content_type": "pd"}, "inputs": columns}


def _make_triton_body(scenario: Scenario, samples: Samples, number: int) -> object:
    """The Open Inference Protocol, with a batch dimension: one tensor, or one a column."""
    rows = [samples.rows[(number + at) % len(samples.rows)] for at in range(scenario.rows)]
    if not scenario.records:
        return _make_open_inference_body(scenario, samples, number)
    columns = zip(samples.columns, zip(*rows, strict=True), strict=True)
    return {
        "inputs": [
            {"name": name, "shape": [len(rows), 1], "datatype": "FP64", "data": list(values)}
            for name, values in columns
        ]
    }


@dataclass(frozen=True)
class Peer:
    """One server.

    Attributes:
        folder: in benchmarks/peers. Its files, or those of its subfolder with the scenario's name, are copied to the
            folder of the server. Its requirements.txt defines the virtual environment.
        serve: the command that starts the server. {port}, {model} (a joblib file), {scenario} and {workers} are
            replaced in it, in `prepare` and in `variables`.
        environment: the peer with the environment to use; its own by default.
        prepare: a command to run before the server starts.
        answer: returns the predictions of a parsed response; None if the server predicts nothing.
        processes: number of processes that the server needs for one worker, for the table.
    """

    name: str
    folder: str
    serve: tuple[str, ...]
    environment: str = ""
    prepare: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    path: str = "/predict"
    request: Request = _make_inputs
    answer: Callable[[Any], Any] | None = lambda reply: reply["predictions"]
    processes: int = 1


_UVICORN = (
    *("uvicorn", "app:app", "--port", "{port}", "--loop", "uvloop", "--http", "httptools", "--no-access-log"),
    *("--log-level", "warning", "--no-proxy-headers", "--no-server-header", "--no-date-header"),
)

LIMIT = "constant answer"
EMPTY = "empty ASGI app"
MLAPP = "mlapp"

PEERS = (
    Peer(LIMIT, "limit", ("python", "server.py", "{port}"), environment="mlapp", answer=None),
    Peer(EMPTY, "asgi", (*_UVICORN, "--lifespan", "off"), environment="mlapp", answer=None),
    Peer(
        MLAPP,
        "mlapp",
        ("mlapp", "serve", "--host", "127.0.0.1", "--port", "{port}", "--workers", "{workers}"),
        prepare=("mlapp", "train", "-p", "test_size=0"),
        variables={"MLAPP_SERVE__ACCESS_LOG": "false"},
    ),
    Peer(
        "BentoML",
        "bentoml",
        ("bentoml", "serve", "service:Digits", "--host", "127.0.0.1", "--port", "{port}"),
        variables={"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": "."},
        answer=lambda reply: reply,
        processes=2,
    ),
    Peer("LitServe", "litserve", ("python", "server.py", "{port}"), processes=3),
    Peer(
        "MLServer",
        "mlserver",
        ("mlserver", "start", "."),
        variables={
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_MODEL_URI": "{model}",
            "MLSERVER_MODEL_NAME": "digits",
        },
        path="/v2/models/digits/infer",
        request=_make_open_inference_body,
        answer=lambda reply: reply["outputs"][0]["data"],
    ),
    Peer(
        "MLflow",
        "mlflow",
        (
            *("mlflow", "models", "serve", "--model-uri", "model", "--env-manager", "local"),
            *("--host", "127.0.0.1", "--port", "{port}", "--workers", "1"),
        ),
        prepare=("python", "save.py", "{model}", "model"),
        variables={"UVICORN_ACCESS_LOG": "false", "UVICORN_LOG_LEVEL": "warning", "MLFLOW_DISABLE_TELEMETRY": "true"},
        path="/invocations",
        request=_make_mlflow_body,
        processes=2,
    ),
    Peer("FastAPI", "fastapi", _UVICORN),
    Peer(
        "mosec",
        "mosec",
        ("python", "server.py", "--port", "{port}", "--timeout", "10000", "--log-level", "error"),
        processes=2,
    ),
    Peer(
        "PyTriton",
        "pytriton",
        ("python", "server.py", "{port}"),
        path="/v2/models/digits/infer",
        request=_make_triton_body,
        answer=lambda reply: reply["outputs"][0]["data"],
        processes=3,
    ),
    Peer(
        "Ray Serve",
        "ray",
        ("python", "server.py", "{port}"),
        variables={"RAY_USAGE_STATS_ENABLED": "0"},
        processes=6,
    ),
)
