"""Layouts of a project's code, and the folders that its commands and functions can be called from."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mlapp import bundle, prediction
from mlapp.bundle.build import build_bundle
from mlapp.project import Project

APP = """
from mlapp import App

from .features import Log, table

app = App("shop", target="y")
app.data_reader(table)
app.model(Log, trusted=[Log])
"""

FEATURES = """
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin


def table() -> pd.DataFrame:
    return pd.DataFrame({"a": np.arange(1.0, 41.0), "y": [0, 1] * 20})


class Log(ClassifierMixin, BaseEstimator):
    def fit(self, features, target=None):
        self.classes_ = np.array([0, 1])
        return self

    def predict(self, features):
        return (np.log(features["a"]) > 2).astype(int)
"""


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        file = root / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    return root


def package(root: Path, place: str, setting: str, *, has_init: bool = True) -> Path:
    """A project whose app is in the package `shop` below `place`, and that `app: setting` names."""
    folder = root / place / "shop"
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(APP)
    (folder / "features.py").write_text(FEATURES)
    if has_init:
        (folder / "__init__.py").touch()
    (root / "mlapp.yaml").write_text(f"app: {setting}\n")
    return root


@pytest.mark.parametrize(
    ("place", "setting", "has_init"),
    [
        ("src", "src/shop/main.py", True),
        ("src", "src/shop/main.py:app", False),
        ("src", "shop.main:app", True),
        ("", "shop.main:app", True),
        ("", "shop/main.py", True),
    ],
)
def test_an_app_in_a_package_trains_predicts_and_is_bundled(
    project, mlapp, monkeypatch, place: str, setting: str, has_init: bool
) -> None:
    root = package(project(None), place, setting, has_init=has_init)
    trained = mlapp("train", "--json")
    assert trained.code == 0, trained.err
    (root / "new.json").write_text('[{"a": 100.0}]')
    asked = mlapp("predict", "--features", "new.json")
    assert asked.code == 0, asked.err
    assert "1" in asked.out
    folder = build_bundle(Project.find(root), warn=lambda _: None).folder
    monkeypatch.chdir(folder)
    opened_bundle = bundle.open(folder)
    assert Path(inspect.getfile(opened_bundle.app.stages["model"].function)).is_relative_to(folder)
    assert list(prediction.load_predictor(opened_bundle.app, opened_bundle.model).predict([{"a": 100.0}])) == [1]


def test_a_relative_import_outside_of_a_package_says_what_to_do(project, mlapp) -> None:
    root = project("from .features import table\n")
    write(root, features_dot_py=FEATURES)
    result = mlapp("train")
    assert result.code == 1
    assert "is not in a package" in result.err
    assert "from features import" in result.err


def test_c_runs_a_command_in_another_folder(project, mlapp, tmp_path, monkeypatch) -> None:
    root = project()
    monkeypatch.chdir(tmp_path)
    assert mlapp("-C", str(root), "train", "-p", "limit=60").code == 0
    monkeypatch.chdir(tmp_path)
    assert mlapp("-C", "project", "models", "show", "--json").code == 0
    missing = mlapp("-C", "nowhere", "train")
    assert missing.code == 2
    assert "no such folder" in missing.err


@pytest.mark.parametrize("form", ["absolute", "relative"])
def test_mlapp_app_brings_its_own_folder_with_it(project, mlapp, tmp_path, monkeypatch, form: str) -> None:
    root = project(mlapp__yaml="store: models\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("MLAPP_APP", str(root / "app.py") if form == "absolute" else "../project/app.py")
    monkeypatch.chdir(elsewhere)
    assert mlapp("train", "-p", "limit=60").code == 0
    monkeypatch.chdir(elsewhere)
    assert json.loads(mlapp("models", "list", "--json").out)[0]["version"] == 1
    assert (root / "models/flowers").is_dir()
    assert not any(elsewhere.iterdir())


def test_app_functions_use_the_folder_of_the_app_and_not_the_current_one(project, tmp_path) -> None:
    root = package(project(None), "src", "shop.main:app")
    script = """
        import sys
        sys.path.insert(0, {source!r})
        from shop.main import app
        from mlapp.serving import create_asgi
        app.train()
        assert app.save().version == 1
        print(app.load().predict([{{"a": 100.0}}]).tolist())
        import asyncio
        asyncio.run(create_asgi(app).start())
    """
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script.format(source=str(root / "src")))],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[1]\n", done.stderr
    assert (root / ".mlapp/store/shop").is_dir()
    assert not any(elsewhere.iterdir())
