"""XGBoost and LightGBM: what comes back from the store predicts as what went in."""

from __future__ import annotations

from pathlib import Path

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
    with pytest.raises(DataError, match="the target holds 'setosa', 'versicolor', 'virginica'") as raised:
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
    with pytest.raises(ModelError, match="cut off"):
        framework.load(tmp_path, framework.formats[0], ())


@pytest.mark.parametrize(
    ("model", "rename", "told"),
    [
        (lightgbm.LGBMClassifier, {"a": 'size "in"'}, "LightGBM takes no column names with quotes"),
        (lightgbm.LGBMClassifier, {"a": "a b", "b": "a_b"}, "reads the columns 'a b' and 'a_b' as one"),
        (xgboost.XGBClassifier, {"a": "size [cm]"}, r"XGBoost takes no column names with \[, \] or <: 'size \[cm\]'"),
    ],
)
def test_names_that_a_library_does_not_take_are_told(model, rename, told):
    app = App("named", target="y")
    table = pd.DataFrame({"a": [1.0, 2.0] * 20, "b": [0.5] * 40, "y": [0, 1] * 20})
    app.data_reader(lambda: table.rename(columns=rename))
    app.model(model)
    with pytest.raises(DataError, match=told):
        app.train()


def test_xgboost_s_classes_begin_at_0():
    app = App("labels", target="y")
    app.data_reader(lambda: pd.DataFrame({"a": [1.0, 2.0] * 20, "y": [1, 2] * 20}))
    app.model(xgboost.XGBClassifier)
    with pytest.raises(DataError, match="from 0 on; the target holds 1, 2"):
        app.train()
