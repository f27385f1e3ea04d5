"""`monitor.columns`: a redacted value is in no file, metric, page or log line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest
from prometheus_client import generate_latest

from mlapp import training
from mlapp.errors import InputError, Problem
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.project import Project
from tests.unit.monitoring.service import Service

pytest.importorskip("duckdb", reason="needs mlapp-kit[monitor]")

PEOPLE = """
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mlapp import App

app = App("people", target="paid", features=["ssn", "email", "plan", "age", "income"])


@app.data_reader
def read(rows: int = 600) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame({
        "ssn": [f"secret-{at}" for at in range(rows)],
        "email": [f"secret-{at}@example.org" for at in range(rows)],
        "plan": random.choice(["secret-gold", "secret-tin"], rows),
        "age": random.integers(18, 80, rows) + 0.8125,
        "income": random.normal(50, 10, rows),
        "paid": random.integers(0, 2, rows),
    })


@app.model
def build():
    return make_pipeline(make_column_transformer(("passthrough", ["age", "income"])), LogisticRegression())
"""
YAML = (
    "monitor: {log: all, window: 10s, columns: {ssn: hash, email: drop, plan: hash, age: round(5), prediction: hash}}\n"
)
SECRETS = (b"secret-", b".8125")


def people(count: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "ssn": [f"secret-live-{at}" for at in range(count)],
            "email": [f"secret-live-{at}@example.org" for at in range(count)],
            "plan": "secret-gold",
            "age": [20.8125 + at % 50 for at in range(count)],
            "income": 50.0,
        }
    )


def test_a_redacted_value_is_nowhere(
    mlapp: Callable[..., Any],
    project: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    root = project(PEOPLE, mlapp__yaml=YAML)
    messages = [mlapp("train")]
    assert messages[0].code == 0, messages[0].err
    service = Service(root, monkeypatch)
    keys = [{"ssn": f"secret-key-{at}", "order": at} for at in range(400)]
    predictions = service.predict(people(400), "r", keys)
    for field in ("ssn", "secret-column"):  # a client that sends a value as a name
        service.recorder.record_refusal(
            "1", InputError([Problem(f"column '{field}' holds 'secret-x'", field=field, row=0)])
        )
    service.stop()
    truths = tmp_path / "truths.json"
    truths.write_text(json.dumps([{"keys": {"ssn": f"secret-key-{at}"}, "truth": 1} for at in range(400)]))
    messages += [mlapp("feedback", str(truths)), mlapp("monitor", "--json"), mlapp("monitor", "run"), mlapp("monitor")]
    messages += [mlapp("monitor", "report", "--html", "report.html"), mlapp("monitor", "sql", "SELECT * FROM log")]
    messages += [mlapp("models", "show", "1", "--json"), mlapp("eject", "schema")]
    assert [one.code for one in messages] == [0] * len(messages)
    window = json.loads(messages[2].out)["windows"][0]
    assert (window["truths"], window["metrics"]["accuracy"]) == (400, pytest.approx(sum(predictions) / 400))

    texts = {f"command {at}": (one.out + one.err).encode() for at, one in enumerate(messages)}
    texts |= {"metrics": generate_latest(service.registry), "log lines": caplog.text.encode()}
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))  # not the app
    texts |= {str(path): path.read_bytes() for path in files}
    for name, text in texts.items():
        if not name.endswith((".skops", ".parquet")):  # the model is the user's; segments are read by SQL, above
            assert not [secret for secret in SECRETS if secret in text], name
    result = mlapp("monitor", "sql", "SELECT count(DISTINCT ssn) AS n, max(age) AS age FROM log", "--json")
    assert json.loads(result.out) == [{"n": 400, "age": 70}]


def test_every_training_redacts_by_the_settings_of_its_environment(project: Callable[..., Path]) -> None:
    project(PEOPLE, mlapp__yaml=f"environments:\n  private:\n    {YAML}")
    trained = training.run(Project.find(environment="private").app, {"rows": 100})
    assert trained.baseline is not None
    for kept in (msgspec.json.encode(trained.baseline), msgspec.json.encode(trained.schema)):
        assert not [secret for secret in SECRETS if secret in kept]


def test_rounded_columns_do_not_drift_from_rounded_training(
    mlapp: Callable[..., Any], project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(PEOPLE, mlapp__yaml=YAML)
    assert mlapp("train").code == 0
    service = Service(root, monkeypatch)
    trained = service.project.app.stage("data_reader").function()[service.model.feature_names]  # type: ignore[union-attr]
    for window in range(2):
        service.predict(trained, f"r{window}")
        service.next_window()
    service.stop()
    window_list = json.loads(mlapp("monitor", "--json").out)["windows"]
    assert [window["distances"]["age"] < 0.03 for window in window_list[:2]] == [True, True]


def test_numbers_at_the_edge_of_floats_are_rounded_and_stop_nothing() -> None:
    rules = ColumnPrivacy({"age": "round(0.5)"}, "people")
    assert rules.redact_values("age", [1e308, 10**400, math.inf, math.nan, "x", 3.2]) == [
        1e308,
        None,
        None,
        None,
        None,
        3.0,
    ]
    assert rules.redact_keys({"age": 10**400}) == {"age": None}
