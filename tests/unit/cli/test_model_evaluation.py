"""`mlapp models evaluate`: a stored version on a file, by the app's evaluator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

APP = """
import pandas as pd
from mlapp import App

app = App("steps", target="y")


class Step:
    def fit(self, features, target):
        return self

    def predict(self, features):
        return (features["x"] > 10).astype(int)


@app.data_reader
def read() -> pd.DataFrame:
    return pd.DataFrame({"x": range(20), "y": [0] * 11 + [1] * 9})


@app.data_parser
def parse(table: pd.DataFrame, scale: float = 1.0) -> tuple[pd.DataFrame, pd.Series]:
    return table[["x"]] * scale, table["y"]


app.model(Step)


@app.evaluator
def evaluate(model: Step, features: pd.DataFrame, target: pd.Series, weight: float = 1.0) -> dict[str, float]:
    return {"accuracy": weight * float((model.predict(features) == target).mean()), "nothing": float("nan")}


@app.saver
def save(model: Step, path) -> None:
    (path / "step").write_text("")


@app.loader
def load(path) -> Step:
    return Step()
"""


@pytest.fixture
def steps(project: Callable[..., Path], mlapp: Callable[..., Any]) -> Path:
    root = project(APP)
    assert mlapp("train", "-p", "scale=2.0", "-p", "weight=0.5", cwd=root).code == 0
    return root


def test_a_version_is_evaluated_with_the_parameters_of_its_training(steps: Path, mlapp: Callable[..., Any]) -> None:
    pd.DataFrame({"x": [1, 6, 7, 20], "y": [0, 1, 0, 1]}).to_csv(steps / "new.csv", index=False)
    before = sorted(steps.rglob("*"))
    result = mlapp("models", "evaluate", "1", "--data", "new.csv", "--json", cwd=steps)
    assert json.loads(result.out) == {
        "app": "steps",
        "version": 1,
        "rows": 4,
        "metrics": {"accuracy": 0.375, "nothing": None},
    }
    header, accuracy, _ = mlapp("models", "evaluate", "--data", "new.csv", cwd=steps).out.splitlines()
    assert header.split("  ")[:2] == ["version 1", "new.csv (4 rows)"]
    assert accuracy.split()[:2] == ["accuracy", "0.375"]
    assert sorted(steps.rglob("*")) == before, "nothing is stored"


@pytest.mark.parametrize(
    ("content", "wrong"),
    [("x\n1\n", "'y'"), ("y\n1\n", "'x'|\"['x']"), ("x,y\nhigh,1\n", "x"), ("", "empty")],
    ids=["no target", "no feature", "another type", "empty"],
)
def test_a_file_that_does_not_fit_is_refused(content: str, wrong: str, steps: Path, mlapp: Callable[..., Any]) -> None:
    (steps / "new.csv").write_text(content)
    result = mlapp("models", "evaluate", "--data", "new.csv", cwd=steps)
    assert result.code == 1
    assert any(text in result.err for text in wrong.split("|"))
