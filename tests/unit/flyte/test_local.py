"""`--engine flyte-local`: the compiled workflow gives what the plain runner gives."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlapp import prediction, training
from mlapp.errors import UserCodeError
from mlapp.flyte import app_source, local_run
from mlapp.project import Project

FOLDER = Path(__file__).parents[3] / "templates"
OTHERS = {"microservices", "flask", "django", "aws-lambda"}
"""One of several apps, which has a test of its own, and those with the model of `basic`."""
TEMPLATES = sorted({path.relative_to(FOLDER).parts[0] for path in FOLDER.glob("*/*/**/app.[ip]*")} - OTHERS)
"""Those of one app, each with a model of its own."""

CACHED = """
import pandas as pd
from sklearn.linear_model import LogisticRegression
from mlapp import App

app = App("cached", target="y")
app.model(LogisticRegression)

@app.data_reader(cache=True)
def read() -> pd.DataFrame:
    return pd.DataFrame({"x": range(20), "y": [0, 1] * 10})
"""


@pytest.mark.parametrize("template", TEMPLATES)
def test_metrics_and_predictions_are_those_of_the_plain_runner(
    template: str, mlapp: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pd.DataFrame({"age": range(60), "kind": list("abc") * 20, "sold": [0, 1] * 30}).to_csv(tmp_path / "data.csv")
    given = ["--set", "data=data.csv", "--set", "target=sold"] if template == "tabular" else []
    ran = mlapp("init", "sample", "--template", template, *given, cwd=tmp_path)
    assert ran.code == 0, ran.err
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    compare(tmp_path / "sample", {})
    assert not [name for name in os.listdir(tmp_path / "temporary") if name.startswith("mlapp-")]


def test_a_system_of_several_apps_too(
    mlapp: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mlapp("init", "sample", "--template", "microservices", cwd=tmp_path).code == 0
    folder = tmp_path / "sample"
    monkeypatch.syspath_prepend(folder)
    system = importlib.import_module("test_system")
    with ExitStack() as stack:
        for name in ("digits", "oddity", "gateway"):
            monkeypatch.setenv("MLAPP_STORE", str(tmp_path / "store" / name))
            compare(folder / name, {"limit": 300})
            if name != "gateway":
                monkeypatch.setenv(f"{name.upper()}_URL", stack.enter_context(system.serving(name, tmp_path / "store")))


def compare(folder: Path, reading: dict[str, Any], **others: Any) -> None:
    """Train an app plainly and as a workflow: metrics, data and predictions are the same."""
    parameters = {**reading, **others}
    sys.modules.pop("app", None)
    opened = Project.find(folder)
    plain = training.run(opened.app, parameters)
    version = local_run.train_locally(app_source.make_flyte_app_source(opened), parameters, opened.store)

    assert version.manifest.metrics == plain.metrics
    assert [*version.manifest.headline] == [*[*plain.metrics.values()][-1]], "the evaluator's order: the first decides"
    assert version.manifest.data.fingerprint == plain.fingerprint
    assert version.manifest.parameters.keys() == plain.parameters.keys()
    assert version.manifest.origin == {"engine": "flyte-local"}
    inputs = training.read_features(opened.app, reading)
    there = prediction.load_predictor(opened.app, version).predict(inputs)
    np.testing.assert_array_equal(np.asarray(there), np.asarray(prediction.make_predictor(plain).predict(inputs)))


WEIGHTS_ONLY = """
import numpy as np
import pandas as pd
import torch
from mlapp import App

app = App("net", target="y")

@app.data_reader
def read() -> pd.DataFrame:
    return pd.DataFrame({"x": np.arange(40, dtype="float32"), "y": [0.0, 1.0] * 20})

@app.model
def build(hidden: int = 4) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(1, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1))
"""


def test_a_model_that_is_kept_as_weights_is_built_with_the_parameters_given(project: Callable[..., Path]) -> None:
    compare(project(WEIGHTS_ONLY), {}, hidden=7)


def test_a_cached_stage_does_not_go_back_to_files_that_were_removed(project: Callable[..., Path]) -> None:
    project(CACHED)
    opened = Project.find()
    versions = [
        local_run.train_locally(app_source.make_flyte_app_source(opened), {}, opened.store).version for _ in range(2)
    ]
    assert versions == [1, 2]


def test_an_error_of_the_user_s_is_the_same_error(project: Callable[..., Path]) -> None:
    opened = Project.find(
        project(
            """
            from sklearn.linear_model import LogisticRegression
            from mlapp import App

            app = App("broken", target="y")
            app.model(LogisticRegression)

            @app.data_reader
            def read():
                return 1 / 0
            """
        )
    )
    with pytest.raises(UserCodeError, match=r"data_reader 'read' in app\.py:.* raised ZeroDivisionError"):
        local_run.train_locally(app_source.make_flyte_app_source(opened), {}, opened.store)
