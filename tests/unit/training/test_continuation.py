"""Continuing a training: `app.train(from_=…)` and `mlapp train --from`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from mlapp import App
from mlapp.errors import DataError, ModelError

IRIS = load_iris(as_frame=True).frame
HALVES = {"first": IRIS[::2], "second": IRIS[1::2]}


def flowers(make: Callable[[], Any]) -> App:
    app = App("flowers", target="target")

    @app.data_reader
    def read(half: str = "first") -> pd.DataFrame:
        return HALVES[half]

    app.model(make)
    return app


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("make", "learned", "expected"),
    [
        (lambda: GaussianNB(), lambda model: model.class_count_.sum(), [60, 120]),
        (lambda: RandomForestClassifier(5), lambda model: len(model.estimators_), [5, 10]),
        (lambda: HistGradientBoostingClassifier(max_iter=4), lambda model: model.n_iter_, [4, 8]),
        (lambda: xgboost.XGBClassifier(n_estimators=3), lambda model: model.get_booster().num_boosted_rounds(), [3, 6]),
        (
            lambda: lightgbm.LGBMClassifier(n_estimators=3, verbose=-1),
            lambda model: model.booster_.current_iteration(),
            [3, 6],
        ),
    ],
)
def test_a_model_continues(make: Callable[[], Any], learned: Callable[[Any], Any], expected: list[int]) -> None:
    app = flowers(make)
    first = app.train()
    version = app.save(first)
    further = app.train(half="second", from_=version.version)
    assert [learned(first.estimator), learned(further.estimator)] == expected
    manifest = app.save(further).manifest
    assert (manifest.parent, version.manifest.parent) == (1, None)
    assert app.load(2).predict(IRIS.drop(columns="target")).tolist()[:3] == [0, 0, 0]


def test_rows_of_which_the_trees_are_sure_and_wrong_do_not_spoil_the_model() -> None:
    numbers = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 3)), columns=["a", "b", "c"])
    app = App("levels", target="level")

    @app.data_reader
    def read(shift: float = 0.0) -> pd.DataFrame:
        rows = numbers[:200] if shift == 0 else numbers[200:]
        return rows.assign(level=np.digitize(rows["a"], [shift - 0.5, shift + 0.5]))

    @app.model
    def build() -> lightgbm.LGBMClassifier:
        return lightgbm.LGBMClassifier(n_estimators=150, num_leaves=15, learning_rate=0.3, verbose=-1, n_jobs=1)

    app.save(app.train(test_size=0))
    assert app.train(shift=0.3, test_size=0, from_="latest").metrics["train"]["accuracy"] > 0.95


@pytest.mark.parametrize("make", [lambda: SGDClassifier(), lambda: LogisticRegression()])
def test_linear_models_go_on(make: Callable[[], Any]) -> None:
    app = flowers(make)
    app.save(app.train())
    assert app.train(from_="latest", half="second").parent == 1


def test_the_last_step_of_a_pipeline_continues_and_those_before_it_stay() -> None:
    def scaled(C: float = 1.0, with_mean: bool = True) -> Pipeline:
        return make_pipeline(StandardScaler(with_mean=with_mean), LogisticRegression(C=C))

    app = flowers(scaled)
    first = app.train()
    app.save(first)
    further = app.train(from_=1, half="second", C=2.0)
    scaler, classifier = (step for _, step in further.estimator.steps)
    assert scaler.mean_.tolist() == first.estimator[0].mean_.tolist()
    assert classifier.C == 2.0
    assert classifier.coef_.tolist() != first.estimator[-1].coef_.tolist()
    assert further.metrics["test"]["accuracy"] > 0.85
    assert app.save(further).manifest.parent == 1

    with pytest.raises(ModelError, match="its step 'standardscaler' has changed"):
        app.train(from_=1, with_mean=False)
    neighbours = flowers(lambda: make_pipeline(StandardScaler(), KNeighborsClassifier()))
    neighbours.save(neighbours.train())
    with pytest.raises(ModelError, match="KNeighborsClassifier cannot be trained further"):
        neighbours.train(from_="latest")


def test_a_module_begins_with_the_version_s_weights() -> None:
    app = flowers(lambda: nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)))
    losses = []
    app.save(app.train(epochs=40, learning_rate=0.02))
    for start in (None, 1):
        losses.append(app.train(half="second", epochs=1, learning_rate=1e-6, from_=start).metrics["test"]["accuracy"])
    assert losses[1] > 0.85 > losses[0]


def test_a_trainer_of_parts_begins_with_the_version_s_weights() -> None:
    app = App("parts", target="target")
    app.data_reader(lambda: iter(HALVES.values()))
    app.model(lambda: nn.Sequential(nn.Linear(4, 3)))
    began = []

    @app.trainer
    def train(model: nn.Module, features: Iterator[pd.DataFrame], target: Iterator[pd.Series]) -> nn.Module:
        began.append(model[0].weight[0, 0].item())
        for _ in zip(features, target, strict=True):
            model[0].weight.data += 1
        return model

    app.evaluator(lambda model, features, target: 0.0)
    app.predictor(lambda model, features: [0] * len(features))
    app.save(app.train())
    further = app.train(from_=1)
    assert began[1] == pytest.approx(began[0] + 2)
    assert further.parent == 1


def test_partial_fit_over_parts_continues_from_the_version() -> None:
    app = App("parts", target="target")
    app.data_reader(lambda half="first": iter([HALVES[half]]))
    app.model(lambda alpha=1e-4: SGDClassifier(alpha=alpha, random_state=0))

    @app.trainer
    def train(model: SGDClassifier, features: Iterator[pd.DataFrame], target: Iterator[pd.Series]) -> SGDClassifier:
        for x, y in zip(features, target, strict=True):
            model.partial_fit(x, y, classes=[0, 1, 2])
        return model

    app.save(app.train())
    further = app.train(from_="latest", half="second", alpha=1e-3)
    assert (further.estimator.t_, further.estimator.alpha) == (121, 1e-3)  # 60 rows of each half, counted from 1
    assert further.parent == 1


def test_what_cannot_go_on_says_why() -> None:
    neighbours = flowers(lambda: KNeighborsClassifier())
    neighbours.save(neighbours.train())
    with pytest.raises(ModelError, match="KNeighborsClassifier cannot be trained further: it has neither partial_fit"):
        neighbours.train(from_=1)
    with pytest.raises(ModelError, match=r"version 1 is a sklearn model, but .* builds a xgboost model"):
        flowers(lambda: xgboost.XGBClassifier()).train(from_=1)

    app = flowers(lambda: GaussianNB())
    app.data_loader(lambda table: table.drop(columns="sepal length (cm)"))
    with pytest.raises(DataError, match="differ from those of version 1: 'sepal length"):
        app.train(from_=1)

    own = flowers(lambda: GaussianNB())
    own.trainer(lambda model, features, target: model.fit(features, target))
    with pytest.raises(ModelError, match="always starts from the beginning"):
        own.train(from_=1)


def test_the_command_names_the_parent(mlapp: Callable, project: Callable) -> None:
    project()
    assert mlapp("train").code == 0
    ran = mlapp("train", "--from", "latest", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["parent"] == 1
    for options in (["--engine", "flyte-local"], ["--remote"]):
        ran = mlapp("train", "--from", "latest", *options)
        assert (ran.code, f"--from cannot be used with {' '.join(options)}." in ran.err) == (2, True), ran.err
