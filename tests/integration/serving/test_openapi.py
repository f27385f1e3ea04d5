"""The server obeys its own OpenAPI document, and no body causes a 500."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pandas as pd
import pytest

ARROW = "application/vnd.apache.arrow.file"
KEY = {"X-API-Key": "secret"}
PEOPLE = """
import pandas as pd

from mlapp import App

app = App("people", target="y")


class Ages:
    def fit(self, features, target=None):
        return self

    def predict(self, features):
        return features["age"].to_numpy()


@app.data_reader
def read() -> pd.DataFrame:
    rows = range(20)
    return pd.DataFrame(
        {
            "age": rows,
            "income": [None if row == 5 else row * 1.5 for row in rows],
            "city": pd.Categorical([["Bern", "Rome"][row % 2] for row in rows]),
            "vip": [row % 3 == 0 for row in rows],
            "note": [f"n{row}" for row in rows],
            "day": pd.date_range("2026-01-01", periods=20),
            "y": [row % 2 for row in rows],
        }
    )


app.model(Ages)
app.saver(lambda model, path: (path / "ages").touch())
app.loader(lambda path: Ages())
"""
PIXELS = """
import numpy as np

from mlapp import App

app = App("pixels")


class First:
    def fit(self, features, target=None):
        return self

    def predict(self, features):
        return features[:, 0]


@app.data_reader
def read() -> np.ndarray:
    return np.arange(60, dtype="int16").reshape(20, 3)


@app.data_loader
def load(data):
    return data


@app.data_splitter
def split(data, test_size=0.2, shuffle=True, random_state=1):
    return {"train": data}


@app.data_parser
def parse(data):
    return data, data[:, 0]


app.model(First)
app.evaluator(lambda model, features, target: 1.0)
app.saver(lambda model, path: (path / "first").touch())
app.loader(lambda path: First())
"""
# A deadline of a millisecond may be kept or not: 408 and 504 are right answers to it.
CONFIG = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 504]
positive_data_acceptance.expected-statuses = ["2xx", 408, 504]
negative_data_rejection.expected-statuses = ["4xx", 504]

# Which values fit a datatype, and that each column is there once, is not in the schema.
[[operations]]
include-path-regex = "/infer$"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 408, 504]

# A truth is of the target's type.
[[operations]]
include-path-regex = "/feedback$"
checks.positive_data_acceptance.expected-statuses = ["2xx", 408, 422, 504]

# The cells of a split are of the types of its columns, in whatever order they are.
[[operations]]
include-path-regex = "(/invocations|:predict)$"
checks.positive_data_acceptance.expected-statuses = ["2xx", 408, 422, 504]
"""

# They have the document and the function of another path: once, for pixels, is enough.
SAME = [
    word
    for path in ("/v1/models/people:predict", "/v2/models/people/versions/{version}/infer")
    for word in ("--exclude-path", path)
]


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[httpx.Client]:
    """Of a server of a table's model and an array's, that asks for a key."""
    from .conftest import PATIENCE, run, serving

    root: Path = tmp_path_factory.mktemp("several")
    for name, app in (("people", PEOPLE), ("pixels", PIXELS)):
        (root / name).mkdir()
        (root / name / "app.py").write_text(app)
        trained = run(root / name, "train")
        assert trained.returncode == 0, trained.stderr
    settings = {"MLAPP_SERVE__ACCESS_LOG": "false", "MLAPP_SERVE__API_KEYS": KEY["X-API-Key"]}
    with serving(root, "people/app.py", "pixels/app.py", **settings) as server:
        with httpx.Client(base_url=server.url.removesuffix("/people"), headers=KEY, timeout=PATIENCE) as client:
            yield client
        assert "Traceback" not in server.text()


@pytest.mark.timeout(720)
@pytest.mark.parametrize(
    "phases",
    [
        ["--phases", "examples,coverage,fuzzing", "--max-examples", "6", *SAME],
        # It takes the example that it got by a link for a wrong body.
        ["--phases", "stateful", "--max-examples", "5", "--exclude-checks", "negative_data_rejection"],
    ],
    ids=["each", "stateful"],
)
def test_schemathesis_finds_nothing(client: httpx.Client, tmp_path: Path, phases: list[str]) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    program = Path(sys.executable).with_name("schemathesis")
    key = ":".join(*KEY.items())
    options = ["--checks", "all", *phases, "--seed", "1", "--no-color", "--header", key]
    ran = subprocess.run(
        [program, "--config-file", config, "run", str(client.base_url.join("/openapi.json")), *options],
        cwd=tmp_path, capture_output=True, text=True, timeout=600,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "passed" in ran.stdout


def test_what_the_document_calls_open_needs_no_key(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    operations = {path: operation for path, methods in paths.items() for operation in methods.values()}
    is_open = {path for path, operation in operations.items() if operation.get("security") == []}
    assert is_open == {"/livez", "/readyz", "/health", "/ping", "/v2/health/live", "/v2/health/ready"}
    for path in operations:
        answer = httpx.request(next(iter(paths[path])), str(client.base_url.join(path)))
        assert answer.status_code == (200 if path in is_open else 401), path


def test_every_type_of_body_of_the_document_is_accepted(client: httpx.Client, tmp_path: Path) -> None:
    document = client.get("/openapi.json").json()
    content = document["paths"]["/people/predict"]["post"]["requestBody"]["content"]
    assert {"text/csv", ARROW} < content.keys()
    table = pd.DataFrame(content["application/json"]["example"]["inputs"])
    table.to_csv(tmp_path / "rows.csv", index=False)
    table.to_feather(tmp_path / "rows.feather")
    for media, file in (("text/csv", "rows.csv"), (ARROW, "rows.feather")):
        body = (tmp_path / file).read_bytes()
        answer = client.post("/people/predict", content=body, headers={"content-type": media})
        assert answer.json()["predictions"] == table["age"].tolist(), answer.text


def test_a_coverage_guided_fuzz_finds_no_body_that_is_a_500(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris has wheels for some Pythons only", exc_type=ImportError)
    script = Path(__file__).with_name("fuzz_bodies.py")
    options = [
        "-seed=1",
        "-runs=2000",
        "-max_total_time=30",
        "-max_len=8192",
        "-len_control=0",
        f"-artifact_prefix={tmp_path}/",
    ]
    ran = subprocess.run(
        [sys.executable, script, tmp_path / "corpus", *options], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "Done" in ran.stderr
