"""One trial of a search, as its task runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mlapp.flyte import data_folder, task_bodies
from mlapp.flyte.interface import TrialResult
from mlapp.flyte.trial import Trial, run_trial_step
from mlapp.project import Project
from mlapp.tuning import TrialEvaluator

APP = """
from typing import Annotated

import pandas as pd
from sklearn.linear_model import LogisticRegression

from mlapp import App, Search

app = App("flowers", target="y")


@app.data_reader
def read() -> pd.DataFrame:
    return pd.DataFrame({"x": range(60), "y": [0] * 30 + [1] * 30})


@app.model
def build(C: Annotated[float, Search(0.01, 100, log=True)] = 1.0) -> LogisticRegression:
    if C > 50:
        raise ValueError("too much")
    return LogisticRegression(C=C)
"""


@pytest.fixture
def splits(project: Callable[..., Path], tmp_path: Path) -> Path:
    app = Project.find(project(APP)).app
    for name in ("table", "splits"):
        (tmp_path / name).mkdir()
    task_bodies.run_read_step(app, {}, tmp_path / "table")
    task_bodies.run_split_step(app, {"data_splitter": {}}, tmp_path / "table", tmp_path / "splits")
    return tmp_path / "splits"


def tried(splits: Path, C: float) -> TrialResult:
    text = msgspec.json.encode(Trial({"model.C": C}, folds=3, seed=0)).decode()
    return msgspec.json.decode(run_trial_step(Project.find().app, {}, splits, text), type=TrialResult)


def test_a_trial_gives_the_metrics_that_a_trial_here_gives(splits: Path) -> None:
    judge = TrialEvaluator(Project.find().app, {}, folds=3, seed=0)
    here = [metrics["accuracy"] for metrics in judge.score_folds({"model.C": 0.1}, lambda fold, progress: None)]
    assert tried(splits, 0.1).metrics["accuracy"] == pytest.approx(sum(here) / 3)


def test_a_trial_that_fails_says_why(splits: Path) -> None:
    result = tried(splits, 99.0)
    assert result.error is not None
    assert "raised ValueError: too much" in result.error[0]
    assert result.error[1].startswith("Fix it at app.py:"), "the path is that of the project, not of the pod"
    assert result.trace.startswith('Traceback (most recent call last):\n  File "app.py"')


def test_a_reader_that_yields_parts_is_read_to_its_end(project: Callable[..., Path], tmp_path: Path) -> None:
    parts = APP.replace("-> pd.DataFrame:", "-> Iterator[pd.DataFrame]:").replace(
        'return pd.DataFrame({"x": range(60), "y": [0] * 30 + [1] * 30})',
        'yield from (pd.DataFrame({"x": [at], "y": [at % 2]}) for at in range(9))',
    )
    app = Project.find(project(f"from collections.abc import Iterator\n{parts}")).app
    (tmp_path / "parts").mkdir()
    task_bodies.run_read_step(app, {}, tmp_path / "parts")
    assert list(data_folder.read_folder_value(tmp_path / "parts", task_bodies.TABLE)["x"]) == list(range(9))
