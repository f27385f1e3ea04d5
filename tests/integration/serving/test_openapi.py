"""The server keeps to its own OpenAPI document, and no body that is sent to it ends in a 500."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pandas as pd
import pytest

ARROW = "application/vnd.apache.arrow.file"
APP = """
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
# A deadline of a millisecond may be kept or not: 408 and 504 are right answers to it.
CONFIG = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 504]
positive_data_acceptance.expected-statuses = ["2xx", 408, 504]
negative_data_rejection.expected-statuses = ["4xx", 504]
"""

# A JSON Schema cannot tell a CSV from any other text, nor Arrow from other bytes: these are not made up from it.
HOOKS = """
import schemathesis


@schemathesis.hook
def filter_case(context, case):
    return case.media_type in (None, "application/json")
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    from .conftest import run, serving

    project: Path = tmp_path_factory.mktemp("people")
    (project / "app.py").write_text(APP)
    trained = run(project, "train")
    assert trained.returncode == 0, trained.stderr
    with serving(project, MLAPP_SERVE__ACCESS_LOG="false") as server:
        yield server.url
        assert "Traceback" not in server.text()


@pytest.mark.parametrize(
    "phases",
    [
        ["--phases", "examples,coverage,fuzzing", "--max-examples", "20"],
        # It takes the example that it got by a link for a wrong body.
        ["--phases", "stateful", "--max-examples", "5", "--exclude-checks", "negative_data_rejection"],
    ],
    ids=["each", "stateful"],
)
def test_schemathesis_finds_nothing(url: str, tmp_path: Path, phases: list[str]) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    (tmp_path / "hooks.py").write_text(HOOKS)
    program = Path(sys.executable).with_name("schemathesis")
    options = ["--checks", "all", *phases, "--seed", "1", "--no-color"]
    ran = subprocess.run(
        [program, "--config-file", config, "run", f"{url}/openapi.json", *options],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "passed" in ran.stdout


def test_the_example_of_the_document_is_answered(url: str) -> None:
    document = httpx.get(f"{url}/openapi.json").json()
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert httpx.get(f"{url}/model").json()["example"] == example
    assert httpx.post(f"{url}/predict", json=example).status_code == 200


def test_every_type_of_body_of_the_document_is_accepted(url: str, tmp_path: Path) -> None:
    document = httpx.get(f"{url}/openapi.json").json()
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert {"text/csv", ARROW} < content.keys()
    table = pd.DataFrame(content["application/json"]["example"]["inputs"])
    table.to_csv(tmp_path / "rows.csv", index=False)
    table.to_feather(tmp_path / "rows.feather")
    for media, file in (("text/csv", "rows.csv"), (ARROW, "rows.feather")):
        body = (tmp_path / file).read_bytes()
        answer = httpx.post(f"{url}/predict", content=body, headers={"content-type": media})
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
