"""`--engine flyte-local`: the compiled workflow gives what the plain runner gives."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlapp import prediction, training
from mlapp.errors import UserCodeError
from mlapp.flyte import local, source
from mlapp.project import Project

TEMPLATES = sorted(path.parents[1].name for path in Path(__file__).parents[3].glob("templates/*/*/app.[ip]*"))

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
    monkeypatch.chdir(tmp_path / "sample")
    opened = Project.find()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    plain = training.run(opened.app)
    version = local.train(source.of_project(opened), {}, opened.store)

    assert version.manifest.metrics == plain.metrics
    assert version.manifest.data.fingerprint == plain.fingerprint
    assert version.manifest.parameters.keys() == plain.parameters.keys()
    assert version.manifest.origin == {"engine": "flyte-local"}
    inputs = training.read_features(opened.app)
    there = prediction.load(opened.app, version).predict(inputs)
    np.testing.assert_array_equal(np.asarray(there), np.asarray(prediction.of_trained(plain).predict(inputs)))
    assert not [name for name in os.listdir(tmp_path / "temporary") if name.startswith("mlapp-")]


def test_a_cached_stage_does_not_go_back_to_files_that_were_removed(project: Callable[..., Path]) -> None:
    project(CACHED)
    opened = Project.find()
    versions = [local.train(source.of_project(opened), {}, opened.store).version for _ in range(2)]
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
        local.train(source.of_project(opened), {}, opened.store)
