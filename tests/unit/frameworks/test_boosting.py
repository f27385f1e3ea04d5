"""XGBoost and LightGBM: a stored model predicts like the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.datasets import load_iris

from mlapp import App, frameworks
from mlapp.errors import DataError, ModelError

IRIS = load_iris(as_frame=True)
NAMES = IRIS.target.map(lambda code: IRIS.target_names[code])


@pytest.mark.parametrize(
    "model",
    [
        xgboost.XGBClassifier(n_estimators=4),
        xgboost.XGBRegressor(n_estimators=4),
        lightgbm.LGBMClassifier(n_estimators=4, verbose=-1),
        lightgbm.LGBMRegressor(n_estimators=4, verbose=-1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_model_is_saved_and_loaded_as_it_was(model, tmp_path: Path) -> None:
    framework = frameworks.find_framework(type(model))
    assert framework.name in type(model).__module__
    fitted = framework.trainer(model, IRIS.data, IRIS.target)
    framework.save(fitted, tmp_path, framework.formats[0], ())
    loaded = framework.load(tmp_path, framework.formats[0], ())
    assert type(loaded) is type(fitted)
    for rows in (1, 150):
        assert np.array_equal(framework.predictor(loaded, IRIS.data[:rows]), fitted.predict(IRIS.data[:rows]))
    assert framework.evaluator(loaded, IRIS.data, IRIS.target) == framework.evaluator(fitted, IRIS.data, IRIS.target)
    assert list(loaded.feature_names_in_) == list(fitted.feature_names_in_)


def test_xgboost_keeps_the_value_that_means_missing(tmp_path: Path) -> None:
    framework = frameworks.get_framework("xgboost")
    features = IRIS.data.where(IRIS.data > 2, -999.0)
    model = xgboost.XGBClassifier(n_estimators=4, missing=-999.0).fit(features, IRIS.target)
    framework.save(model, tmp_path, "ubj", ())
    loaded = framework.load(tmp_path, "ubj", ())
    assert np.array_equal(loaded.predict_proba(features), model.predict_proba(features))
    assert (loaded.missing, loaded.get_booster().attributes(), model.get_booster().attributes()) == (-999.0, {}, {})


def test_boosters_without_the_scikit_learn_classes(tmp_path: Path) -> None:
    for booster, folder in (
        (xgboost.train({"max_depth": 2}, xgboost.DMatrix(IRIS.data, IRIS.target), 3), tmp_path / "xgboost"),
        (lightgbm.train({"verbose": -1}, lightgbm.Dataset(IRIS.data, IRIS.target), 3), tmp_path / "lightgbm"),
    ):
        folder.mkdir()
        framework = frameworks.find_framework(type(booster))
        framework.save(booster, folder, framework.formats[0], ())
        loaded = framework.load(folder, framework.formats[0], ())
        assert type(loaded) is type(booster)
        assert np.allclose(framework.predictor(loaded, IRIS.data), framework.predictor(booster, IRIS.data))


def test_lightgbm_keeps_labels_and_where_it_stopped_early(tmp_path: Path) -> None:
    framework = frameworks.get_framework("lightgbm")
    model = lightgbm.LGBMClassifier(n_estimators=60, verbose=-1, learning_rate=0.5)
    model.fit(
        IRIS.data[::2],
        NAMES[::2],
        eval_set=[(IRIS.data[1::2], NAMES[1::2])],
        callbacks=[lightgbm.early_stopping(2, verbose=False)],
    )
    assert 0 < model.best_iteration_ < 60
    framework.save(model, tmp_path, "txt", ())
    loaded = framework.load(tmp_path, "txt", ())
    assert loaded.best_iteration_ == model.best_iteration_
    assert np.array_equal(loaded.predict_proba(IRIS.data), model.predict_proba(IRIS.data))
    assert set(loaded.predict(IRIS.data)) == set(IRIS.target_names)


def test_xgboost_says_how_to_number_text_classes() -> None:
    with pytest.raises(DataError, match="the target has 'setosa', 'versicolor', 'virginica'") as raised:
        frameworks.get_framework("xgboost").trainer(xgboost.XGBClassifier(), IRIS.data, NAMES)
    assert "cat.codes" in raised.value.todo


@pytest.mark.parametrize(("name", "file"), [("xgboost", "model.ubj"), ("lightgbm", "model.txt")])
def test_a_file_that_is_cut_off(name: str, file: str, tmp_path: Path) -> None:
    framework = frameworks.get_framework(name)
    kind = {"xgboost": xgboost.XGBRegressor, "lightgbm": lightgbm.LGBMRegressor}[name]
    framework.save(
        kind(n_estimators=3).fit(IRIS.data, pd.Series(IRIS.target, dtype=float)), tmp_path, framework.formats[0], ()
    )
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[: len(content) // 3])
    with pytest.raises(ModelError, match="truncated"):
        framework.load(tmp_path, framework.formats[0], ())


@pytest.mark.parametrize(
    ("model", "rename", "message"),
    [
        (lightgbm.LGBMClassifier, {"a": 'size "in"'}, "LightGBM does not accept column names with quotes"),
        (lightgbm.LGBMClassifier, {"a": "a b", "b": "a_b"}, "reads the columns 'a b' and 'a_b' as the same column"),
        (
            xgboost.XGBClassifier,
            {"a": "size [cm]"},
            r"XGBoost does not accept column names with \[, \] or <: 'size \[cm\]'",
        ),
    ],
)
def test_names_that_a_library_does_not_take_are_reported(model, rename, message):
    app = App("named", target="y")
    table = pd.DataFrame({"a": [1.0, 2.0] * 20, "b": [0.5] * 40, "y": [0, 1] * 20})
    app.data_reader(lambda: table.rename(columns=rename))
    app.model(model)
    with pytest.raises(DataError, match=message):
        app.train()


def test_xgboost_s_classes_begin_at_0():
    app = App("labels", target="y")
    app.data_reader(lambda: pd.DataFrame({"a": [1.0, 2.0] * 20, "y": [1, 2] * 20}))
    app.model(xgboost.XGBClassifier)
    with pytest.raises(DataError, match="numbered from 0; the target has 1, 2"):
        app.train()


@pytest.mark.parametrize(
    ("model", "column", "message"),
    [
        (xgboost.XGBRegressor, ["a", "b"] * 10, "XGBoost does not accept text: column 'x'"),
        (lightgbm.LGBMRegressor, ["a", "b"] * 10, "LightGBM does not accept text: column 'x'"),
        (xgboost.XGBRegressor, pd.cut(pd.Series(range(20)), 2), "XGBoost does not accept categories of interval"),
        (lightgbm.LGBMRegressor, pd.cut(pd.Series(range(20)), 2), "LightGBM does not accept categories of interval"),
        (xgboost.XGBRegressor, pd.Categorical([True, False] * 10), "XGBoost does not accept categories of bool"),
        (lightgbm.LGBMRegressor, pd.array(range(20), "int64[pyarrow]"), "LightGBM does not accept Arrow types"),
        (xgboost.XGBRegressor, pd.date_range("2024-01-01", periods=20), "XGBoost does not accept times"),
    ],
)
def test_a_column_that_the_library_does_not_take_is_named(model: Any, column: Any, message: str) -> None:
    app = App("columns", target="y")
    app.data_reader(lambda: pd.DataFrame({"x": column, "y": range(20)}))
    settings = {"enable_categorical": True} if model is xgboost.XGBRegressor else {}
    app.model(lambda: model(n_estimators=1, **settings))
    with pytest.raises(DataError, match=message) as raised:
        app.train()
    assert "table['x']" in raised.value.todo


def test_categories_need_a_setting_of_xgboost() -> None:
    app = App("columns", target="y")
    app.data_reader(lambda: pd.DataFrame({"x": pd.Categorical(["a", "b"] * 10), "y": range(20)}))
    app.model(lambda: xgboost.XGBRegressor(n_estimators=1))
    with pytest.raises(DataError, match="columns of categories.*'x'") as raised:
        app.train()
    assert "enable_categorical=True" in raised.value.todo
