"""Several apps in one server: each with all of its features and its own modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from .conftest import PATIENCE, until

pytestmark = pytest.mark.xdist_group("serving")

APP = """
import pickle
from pathlib import Path

import pandas as pd
from helper import Model

from mlapp import App

app = App("{name}", target="y")


@app.data_reader
def read() -> pd.DataFrame:
    return pd.DataFrame({{"{column}": [1.0, 2.0, 3.0, 4.0], "y": [0.0, 1.0, 0.0, 1.0]}})


app.model(Model)


@app.saver
def save(model, path: Path) -> None:
    (path / "model.pickle").write_bytes(pickle.dumps(model))


@app.loader
def load(path: Path) -> Model:
    return pickle.loads((path / "model.pickle").read_bytes())


@app.evaluator
def evaluate(model: Model, features: pd.DataFrame, target: pd.Series) -> float:
    return 1.0


@app.predictor
def predict(model: Model, features: pd.DataFrame) -> list[float]:
    from late import plus  # imported at the first request

    return [plus(model.factor * value) for value in features["{column}"]]
"""
HELPER = """
class Model:
    def __init__(self, factor: float = {factor}) -> None:
        self.factor = factor

    def fit(self, features, target=None):
        return self
"""
LATE = """
def plus(value: float) -> float:
    return value + {more}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, mlapp) -> Path:
    """Two projects whose files have the same names, each with two versions; `production` is the first."""
    root = tmp_path_factory.mktemp("several")
    for name, column, factor, more in (("tens", "a", 10, 1), ("hundreds", "b", 100, 2)):
        project = root / name
        project.mkdir()
        (project / "app.py").write_text(APP.format(name=name, column=column))
        (project / "helper.py").write_text(HELPER.format(factor=factor))
        (project / "late.py").write_text(LATE.format(more=more))
        for _ in range(2):
            done = mlapp(project, "train")
            assert done.returncode == 0, done.stderr
        assert mlapp(project, "models", "promote", "1", "production").returncode == 0
    return root


@pytest.fixture(scope="module")
def both(folder, serve) -> Iterator[httpx.Client]:
    files = ("tens/app.py:app", "hundreds/app.py:app")
    with serve(folder, *files, "--model", "production", MLAPP_SERVE__REFRESH="0.2") as server:
        assert [url.rpartition("/")[2] for url in server.urls] == ["tens", "hundreds"]
        with httpx.Client(base_url=server.url.rpartition("/")[0], timeout=PATIENCE) as client:
            yield client


def test_each_answers_with_its_own_code(both) -> None:
    for _ in range(2):
        answer = both.post("/tens/predict", json={"inputs": [{"a": 3}]})
        assert answer.json() == {"predictions": [31.0], "model": "tens", "version": "1"}
        answer = both.post("/hundreds/predict", json={"inputs": [{"b": 3}]})
        assert answer.json() == {"predictions": [302.0], "model": "hundreds", "version": "1"}
    assert both.post("/tens/predict", json={"inputs": [{"b": 3}]}).status_code == 422


@pytest.mark.parametrize("name", ["tens", "hundreds"])
def test_each_prefix_has_everything(both, name: str) -> None:
    assert both.get(f"/{name}", follow_redirects=True).url.path == f"/{name}/"
    assert "<html" in both.get(f"/{name}/").text
    assert both.get(f"/{name}/model").json()["model"] == name
    assert "swagger" in both.get(f"/{name}/docs").text
    assert f"/{name}/predict" in both.get(f"/{name}/openapi.json").json()["paths"]
    assert f'mlapp_model_info{{model="{name}",version=' in both.get(f"/{name}/metrics").text
    assert both.get(f"/v2/models/{name}").json()["name"] == name
    example = both.get(f"/{name}/model").json()["example"]
    assert both.post(f"/{name}/invocations", json={"inputs": example["inputs"]}).status_code == 200


def test_the_server_speaks_for_all(both) -> None:
    assert both.get("/readyz").json()["models"].keys() == {"tens", "hundreds"}
    assert [entry["model"] for entry in both.get("/models").json()["models"]] == ["tens", "hundreds"]
    assert both.post("/predict", json={"inputs": []}).status_code == 404


def test_a_new_version_is_loaded_with_the_modules_of_its_own_project(both, folder, mlapp) -> None:
    for name, column, predicted in (("tens", "a", 31.0), ("hundreds", "b", 302.0)):
        assert mlapp(folder / name, "models", "promote", "2", "production").returncode == 0

        def answer(name: str = name, column: str = column) -> dict:
            return both.post(f"/{name}/predict", json={"inputs": [{column: 3}]}).json()

        until(lambda: answer()["version"] == "2")
        assert answer() == {"predictions": [predicted], "model": name, "version": "2"}


def test_two_apps_of_one_name_are_refused(folder, mlapp) -> None:
    ran = mlapp(folder, "serve", "tens/app.py", "tens/app.py", "--port", "0")
    assert ran.returncode == 2
    assert "Two of the apps are called 'tens'." in ran.stderr
