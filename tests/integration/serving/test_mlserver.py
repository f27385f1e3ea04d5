"""MLServer itself serves an exported version, and answers as `mlapp serve` does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput

from mlapp.bundle.project_files import find_project_files
from mlapp.cli.main import run
from mlapp.project import Project
from mlapp.serving import create_asgi
from tests.preloaded import preload_commands
from tests.servers import free_port, running
from tests.unit.cli.test_templates import mixed_table

UV = Path(sys.executable).with_name("uv")
MLSERVER = ["mlserver==1.7.1", "fastapi<0.116", "uvloop<0.22"]
APP = """
import json

import numpy as np
import pandas as pd

from mlapp import App

app = App("shops", target="open")
CITIES = {"Bern": 0.1, "Rome": 1 / 3, "Oslo": -2.7}


@app.data_reader
def read() -> pd.DataFrame:
    rows = range(40)
    return pd.DataFrame({"city": [list(CITIES)[row % 3] for row in rows], "sales": [row / 7 for row in rows],
                         "open": [["no", "yes"][row % 2] for row in rows]})


class Model:
    def fit(self, features, target=None):
        return self

    def predict(self, features):
        return 1 / (1 + np.exp(-features["sales"].astype(float) * features["city"].astype(str).map(CITIES)))


app.model(Model)


@app.saver
def save(model, path) -> None:
    (path / "model.json").write_text("{}")


@app.loader
def load(path):
    return Model()
"""
RECORDS = """

@app.predictor
def predict(model, features):
    found = model.predict(features)
    return pd.DataFrame({"yes": found, "word": ["open" if value > 0.5 else "closed" for value in found]})
"""
STREAM = """

@app.predictor
def predict(model, features):
    for value in model.predict(features):
        yield "open" if value > 0.5 else "closed"
"""


TEMPLATES = {"tabular": {"data": "table.csv", "target": "bought"}}
"""Templates whose versions MLServer runs beside the two apps, with the answers to `mlapp init`'s questions: a table of
all types. The others only differ in their frameworks, which take seconds to import.
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with one version, and its export, which holds that of another app in a folder of its own."""
    root = tmp_path_factory.mktemp("shops")
    here = Path.cwd()
    for name, text in {"shops": APP + RECORDS, "words": APP + STREAM}.items():
        folder = root / name
        folder.mkdir()
        (folder / "app.py").write_text(text.replace('"shops"', f'"{name}"'))
        (folder / "requirements.txt").write_text("mlapp-kit\npandas\n")
        (folder / "mlapp.yaml").write_text(f"name: {name}\nserve: {{batch_wait: 0.01}}\n")
        app = Project.find(folder).app
        app.train()
        app.save()
        os.chdir(folder)
        target = root / "export" / ("words" if name == "words" else "")
        run_command("export", "mlserver", "--to", str(target))
    mixed_table("bought").to_csv(root / "table.csv", index=False)
    for template, chosen in TEMPLATES.items():
        os.chdir(root)
        options = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
        run_command("init", template, "--template", template, *options)
        os.chdir(root / template)
        run_command("train")
        run_command("export", "mlserver", "--to", str(root / "export" / template))
    yield root
    os.chdir(here)


def run_command(*arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        run(arguments)
    assert not end.value.code


@pytest.fixture(scope="module")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The addresses of `mlserver start`, of HTTP and of gRPC.

    MLServer needs an older FastAPI than the environment of the tests has: its packages lie in a folder before that.
    """
    packages = tmp_path_factory.mktemp("mlserver")
    subprocess.run([UV, "pip", "install", "--quiet", "--target", packages, "--python", sys.executable, *MLSERVER],
                   check=True, timeout=120)  # fmt: skip
    http, grpc, metrics = free_port(), free_port(), free_port()
    variables = {
        "PYTHONPATH": packages, "MLSERVER_HOST": "127.0.0.1", "MLSERVER_HTTP_PORT": http, "MLSERVER_GRPC_PORT": grpc,
        "MLSERVER_METRICS_PORT": metrics,
    }  # fmt: skip
    command = ["env", *(f"{name}={value}" for name, value in variables.items())]
    command += [sys.executable, "-c", "from mlserver.cli import main; main()", "start", str(project / "export")]
    url = f"http://127.0.0.1:{http}"

    def is_ready() -> bool:
        try:
            statuses = [
                httpx.get(f"{url}/v2/models/{name}/ready").status_code for name in ("shops", "words", *TEMPLATES)
            ]
        except httpx.TransportError:
            return False
        return set(statuses) == {200}

    with running(command, packages, is_ready):
        yield url, f"127.0.0.1:{grpc}"


def request_of(cities: list[str], sales: list[float], rows: int | None = None) -> dict[str, Any]:
    count = len(cities) if rows is None else rows
    return {
        "inputs": [
            {"name": "city", "datatype": "BYTES", "shape": [count], "data": cities},
            {"name": "sales", "datatype": "FP64", "shape": [count], "data": sales},
        ]
    }


REQUESTS = [
    request_of(["Bern"], [1 / 3]),
    request_of(["Bern", "Rome", "Oslo"], [0.1, 1e-9, 12345.678901234567]),
    {**request_of(["Rome"], [2.5]), "outputs": [{"name": "yes"}]},
    {**request_of(["Rome"], [2.5]), "outputs": [{"name": "maybe"}]},
    request_of(["Bern"], [1.0], rows=2),
    {"inputs": [{"name": "city", "datatype": "BYTES", "shape": [1], "data": ["Bern"]}]},
    {"inputs": [{"name": "city", "datatype": "BYTES", "shape": [1], "data": ["Bern"]},
                {"name": "sales", "datatype": "FP64", "shape": [1], "data": ["much"]}]},
]  # fmt: skip


@pytest.mark.anyio
async def test_mlserver_answers_as_the_server(project: Path, server: tuple[str, str]) -> None:
    app = Project.find(project / "shops").app
    transport = httpx.ASGITransport(create_asgi(app))
    with httpx.Client(base_url=server[0]) as theirs:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as ours:
            for request in REQUESTS:
                expected = await ours.post("/v2/models/shops/infer", json=request)
                their_answer = theirs.post("/v2/models/shops/infer", json=request)
                assert their_answer.status_code == expected.status_code, their_answer.text
                for key in ("outputs", "error", "model_name", "model_version"):
                    assert their_answer.json().get(key) == expected.json().get(key)
            about = (await ours.get("/v2/models/shops")).json()
            assert {**theirs.get("/v2/models/shops").json(), "parameters": None} == {**about, "parameters": None}


@pytest.mark.parametrize("template", TEMPLATES)
def test_mlserver_answers_as_the_server_for_a_template(project: Path, server: tuple[str, str], template: str) -> None:
    command = ["tests.template_answers", str(project / template)]
    done = preload_commands().run(command, Path(__file__).parents[3], os.environ)
    assert done.returncode == 0, done.stderr
    ours = json.loads(done.stdout.splitlines()[-1])
    their_answer = httpx.post(f"{server[0]}/v2/models/{template}/infer", json=ours["tensors"], timeout=60)
    assert (their_answer.status_code, their_answer.json()["outputs"]) == (ours["infer"][0], ours["infer"][1]["outputs"])


def test_grpc_gives_the_same_bits(server: tuple[str, str]) -> None:
    request = REQUESTS[1]
    expected = httpx.post(f"{server[0]}/v2/models/shops/infer", json=request).json()["outputs"]
    inputs = []
    for tensor in request["inputs"]:
        is_text = tensor["datatype"] == "BYTES"
        values = np.array(tensor["data"], dtype=object if is_text else "float64")
        inputs.append(InferInput(tensor["name"], tensor["shape"], tensor["datatype"]))
        inputs[-1].set_data_from_numpy(values)
    answer = InferenceServerClient(server[1]).infer("shops", inputs)
    for output in expected:
        found = answer.as_numpy(output["name"]).tolist()
        assert [value.decode() if isinstance(value, bytes) else value for value in found] == output["data"]


def test_requests_that_mlserver_batches_keep_their_answers(server: tuple[str, str]) -> None:
    requests = [request_of(["Oslo"] * rows, [row / 3 for row in range(rows)]) for rows in range(1, 13)]

    def infer(request: dict[str, Any]) -> Any:
        return httpx.post(f"{server[0]}/v2/models/shops/infer", json=request, timeout=60).json()["outputs"]

    with ThreadPoolExecutor(12) as clients:
        assert list(clients.map(infer, requests)) == [infer(request) for request in requests]


def test_a_predictor_that_yields_streams(server: tuple[str, str]) -> None:
    request = request_of(["Bern", "Rome"], [1.0, 2.0])
    with httpx.stream("POST", f"{server[0]}/v2/models/words/infer_stream", json=request) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert [event["outputs"][0]["data"] for event in events] == [["open"], ["open"]]
    whole = httpx.post(f"{server[0]}/v2/models/words/infer", json=request)
    assert (whole.status_code, "infer_stream" in whole.json()["error"]) == (400, True)


def test_an_export_replaces_nothing_but_an_export(project: Path, tmp_path: Path) -> None:
    os.chdir(project / "shops")
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(SystemExit) as end:
        run(["export", "mlserver", "--to", str(tmp_path)])
    assert end.value.code == 2
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
    again = project / "shops" / "again"
    run_command("export", "mlserver", "--to", str(again))
    with (again / "mlapp_runtime.py").open("a") as runtime:
        runtime.write("\n# my own\n")
    run_command("export", "mlserver", "--to", str(again))
    assert "# my own" in (again / "mlapp_runtime.py").read_text()
    requirements = (again / "requirements.txt").read_text()
    assert "pandas==" in requirements
    assert "fastapi" not in requirements
    wheels = (again / "bundle" / "wheels").is_dir()  # pip finds them from every folder
    assert not any("again" in path.parts for path in find_project_files(project / "shops", warn=print))
    assert wheels is requirements.startswith("--find-links bundle/wheels\nmlapp-kit==")
