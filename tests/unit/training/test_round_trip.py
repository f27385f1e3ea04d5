"""The check before a version exists: differences between server and training are handled or refused."""

from __future__ import annotations

import datetime
import json
import random
import re
import sys
import time
import types
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import DBSCAN
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from mlapp import App, training
from mlapp.errors import DataError, ModelError
from mlapp.flyte import task_bodies as flyte_stages
from mlapp.store import open_store
from mlapp.training import round_trip

ROWS = 60


def table() -> pd.DataFrame:
    random = np.random.default_rng(0)
    x = random.normal(size=ROWS)
    return pd.DataFrame({"x": x, "z": random.normal(size=ROWS), "y": np.where(x > 0, "high", "low")})


def an_app(**columns: Any) -> App:
    app = App("checked", target="y")
    app.data_reader(lambda: table().assign(**columns))
    app.model(LogisticRegression)
    return app


def logged_by_mlapp(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("mlapp")]


def lag(features: pd.DataFrame) -> pd.DataFrame:
    return features.assign(before=features["x"].shift().fillna(0))


def rolling(features: pd.DataFrame) -> pd.DataFrame:
    return features.assign(mean=features["x"].rolling(3, min_periods=1).mean())


def rank(features: pd.DataFrame) -> pd.DataFrame:
    return features.rank()


def center(features: pd.DataFrame) -> pd.DataFrame:
    return features - features.mean()


def fill(features: pd.DataFrame) -> pd.DataFrame:
    return features.fillna(features.mean()).fillna(-1)


def mark_duplicates(features: pd.DataFrame) -> pd.DataFrame:
    return features.assign(twice=features.duplicated().astype(int))


def double(features: pd.DataFrame) -> pd.DataFrame:
    return features * 2


@pytest.mark.parametrize("dependent", [lag, rolling, rank, center, fill, mark_duplicates])
def test_rows_that_depend_on_each_other_are_not_batched(dependent: Callable[..., Any], caplog, tmp_path: Path) -> None:
    app = an_app(**({"z": [None if row == 40 else row * 0.1 for row in range(ROWS)]} if dependent is fill else {}))
    app.feature_transformer(dependent)
    trained = app.train()
    assert not trained.batching
    assert f"feature_transformer '{dependent.__name__}' in test_round_trip.py" in caplog.text
    assert "not batch requests" in caplog.text
    version = open_store(str(tmp_path / "store"), tmp_path).put(trained)
    assert version.manifest.batching is False


def test_a_predictor_whose_rows_depend_on_each_other_is_named(caplog) -> None:
    app = an_app()

    @app.predictor
    def above_the_mean(model: Any, features: pd.DataFrame) -> list[bool]:
        return (features["x"] > features["x"].mean()).tolist()

    assert not app.train().batching
    assert "predictor 'above_the_mean'" in caplog.text


def test_one_that_declares_to_take_one_request_at_a_time_is_not_warned_of(caplog) -> None:
    app = an_app()
    app.feature_transformer(rank)
    app.predictor(batch=False)(lambda model, features: model.predict(features).tolist())
    assert not app.train().batching
    assert not logged_by_mlapp(caplog)


@pytest.mark.parametrize("independent", [double, np.exp, lambda features: features.assign(n=features.sum(axis=1))])
def test_rows_that_do_not_are_batched(independent: Callable[..., Any], caplog) -> None:
    app = an_app()
    app.feature_transformer(lambda features: independent(features))
    assert app.train().batching
    assert not logged_by_mlapp(caplog)


def test_answers_that_are_random_are_neither_compared_nor_refused(caplog) -> None:
    app = an_app()

    @app.predictor
    def draw(model: Any, features: pd.DataFrame) -> list[float]:
        return [random.random() for _ in range(len(features))]

    assert app.train().batching
    assert not logged_by_mlapp(caplog)


@pytest.mark.parametrize("kind", ["async", "stream", "async stream", "one by one"])
def test_every_kind_of_predictor_is_checked(kind: str, caplog) -> None:
    app, calls = an_app(), []

    @app.on_predict
    def after(model: Any, features: Any, predictions: Any) -> None:
        calls.append(predictions)

    async def answer(model: Any, features: pd.DataFrame) -> list[float]:
        return features["x"].tolist()

    def words(model: Any, features: pd.DataFrame) -> Iterator[str]:
        yield from map(str, features["x"])

    async def async_words(model: Any, features: pd.DataFrame) -> AsyncIterator[str]:
        for value in features["x"]:
            yield str(value)

    predictors = {"async": answer, "stream": words, "async stream": async_words}
    if kind == "one by one":
        app.predictor(batch=False)(lambda model, features: features["x"].tolist())
    else:
        app.predictor(predictors[kind])
    assert app.train().batching
    assert not calls
    assert not logged_by_mlapp(caplog)


def test_a_model_that_cannot_predict_one_row_is_refused() -> None:
    app = an_app(town=["Bern", "Rome", "Oslo"] * 20)
    app.feature_transformer(lambda features: pd.get_dummies(features))
    with pytest.raises(ModelError, match="cannot predict one row alone") as raised:
        app.train()
    assert "the same columns as" in raised.value.todo

    app = an_app()

    @app.feature_transformer
    def unfilled(features: pd.DataFrame) -> pd.DataFrame:
        return features.assign(before=features["x"].shift()).bfill()

    with pytest.raises(ModelError, match="cannot predict one row alone"):
        app.train()

    app = App("checked", target="y")
    app.data_reader(lambda: table().set_index(pd.date_range("2024-01-01", periods=ROWS)))
    app.model(LogisticRegression)
    app.feature_transformer(lambda features: features.assign(month=features.index.month))
    with pytest.raises(ModelError, match="'RangeIndex' object has no attribute 'month'") as raised:
        app.train()
    assert "reset_index" in raised.value.todo


def test_rows_in_another_order_are_refused() -> None:
    app = an_app()
    app.feature_transformer(lambda features: features.sort_values("x"))
    with pytest.raises(DataError, match="feature_transformer .* returned the rows in another order"):
        app.train()

    app = an_app()
    app.predictor(lambda model, features: features["x"].sort_values())
    with pytest.raises(DataError, match="predictor .* returned the rows in another order"):
        app.train()


def test_a_target_of_several_fields_is_trained_on() -> None:
    """As libraries for survival take it: whether the event was seen, and when."""
    app = App("survival")
    app.data_reader(table)

    @app.data_parser
    def parse(data: pd.DataFrame) -> tuple[pd.DataFrame, Any]:
        seen = np.array(list(zip(data["y"] == "low", data["z"], strict=True)), dtype=[("seen", bool), ("time", float)])
        return data[["x", "z"]], seen

    app.model(LinearRegression)
    app.trainer(lambda model, features, target: model.fit(features, target["time"]))
    app.evaluator(lambda model, features, target: 0.0)
    assert app.train().batching


def test_a_row_that_lacks_a_value_is_predicted_alone_too() -> None:
    app = an_app(z=[None if row % 5 == 1 else row * 0.1 for row in range(ROWS)])
    app.feature_transformer(lambda features: features.fillna(features.mean()))
    with pytest.raises(ModelError, match="cannot predict one row alone: .* contains NaN"):
        app.train()


def test_a_feature_loader_s_features_are_checked_without_json() -> None:
    app = an_app()
    app.feature_loader(lambda inputs: pd.DataFrame(inputs))
    app.feature_transformer(rank)
    assert not app.train().batching


COLUMNS = {
    "timedeltas as objects": (pd.Series([datetime.timedelta(1)] * ROWS, dtype=object), "to_timedelta"),
    "interval": (pd.IntervalIndex.from_breaks(range(ROWS + 1)), "category"),
    "complex": (np.arange(ROWS) * 1j, "real and imaginary"),
    "time with a zone": ([datetime.time(1, tzinfo=datetime.UTC)] * ROWS, "seconds since midnight"),
    "moments as objects": (pd.Series([datetime.datetime(2024, 1, 1)] * ROWS, dtype=object), "to_datetime"),
    "category of intervals of times": (pd.cut(pd.date_range("2024", periods=ROWS), 3), "rename_categories"),
    "two kinds of missing": (pd.Series(["a", None, np.nan, "b"] * 15, dtype=object), "in one way"),
    "arrays": (pd.Series([np.array([1.0, 2.0])] * ROWS), "lists"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_that_json_does_not_have_is_refused_before_the_training(name: str) -> None:
    column, messages = COLUMNS[name]
    app, trained = an_app(odd=column), []

    @app.trainer
    def fit(model: Any, features: Any, target: Any) -> Any:
        trained.append(model)
        return model

    with pytest.raises(DataError, match="Column 'odd' of the features cannot be sent as JSON") as raised:
        app.train()
    assert messages in raised.value.todo
    assert not trained


def test_an_index_that_the_answers_depend_on_is_found() -> None:
    app = an_app()

    @app.predictor
    def by_index(model: Any, features: pd.DataFrame) -> list[int]:
        return features.index.tolist()

    with pytest.raises(DataError, match="predictor 'by_index'.*predicts differently for features that came as JSON"):
        app.train()


def test_a_saver_that_forgets_is_found() -> None:
    app = App("forgetful", target="y")
    app.data_reader(lambda: pd.DataFrame({"x": range(ROWS), "y": range(1, ROWS + 1)}))
    app.model(LinearRegression)

    @app.saver
    def save(model: LinearRegression, path: Path) -> None:
        (path / "model.json").write_text(json.dumps(model.coef_.tolist()))

    @app.loader
    def load(path: Path) -> LinearRegression:
        model = LinearRegression()
        model.coef_, model.intercept_ = np.array(json.loads((path / "model.json").read_text())), 0.0
        return model

    with pytest.raises(
        ModelError, match="does not predict like the trained one: row 0 of the sample gives 0.0 instead"
    ):
        app.train()


def top_level(features: Any) -> Any:
    return features * 2


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """The module of these functions, under a name by which it can be imported."""
    shop = types.ModuleType("shop")
    shop.top_level = top_level  # type: ignore[attr-defined]
    sys.modules["shop"] = shop
    top_level.__module__ = "shop"
    yield shop
    del sys.modules["shop"]
    top_level.__module__ = __name__


@pytest.mark.parametrize(
    ("function", "trusted", "message"),
    [
        (lambda features: features, (), "contains '.*<lambda>', which has no importable name"),
        (lambda features: features, ("<lambda>",), "loaded"),
        (top_level, (), "not declared trusted: shop.top_level"),
    ],
)
def test_what_can_never_be_saved_is_reported_before_the_data_is_read(
    function: Any, trusted: tuple[str, ...], message: str, module: Any
) -> None:
    app, read = App("unsavable", target="y"), []
    app.data_reader(lambda: read.append(1))
    trusted = tuple(f"{function.__module__}.{name}" for name in trusted)

    @app.model(trusted=trusted)
    def build() -> Any:
        return make_pipeline(FunctionTransformer(function), LogisticRegression())

    with pytest.raises(ModelError, match=message):
        app.train()
    assert not read


def test_a_function_of_a_module_can_be_saved_when_it_is_trusted(module: Any) -> None:
    app = App("trusting", target="y")
    app.data_reader(table)

    @app.model(trusted=[top_level])
    def build() -> Any:
        return make_pipeline(FunctionTransformer(top_level), LogisticRegression())

    assert app.train().batching


def test_a_model_of_an_own_trainer_without_a_format_is_reported() -> None:
    app = App("checked", target="y")
    app.data_reader(table)
    app.model(lambda: {})
    app.trainer(lambda model, features, target: {"models": [1, 2]})
    app.predictor(lambda model, features: [0] * len(features))
    app.evaluator(lambda model, features, target: 0.0)
    with pytest.raises(ModelError, match="declares no format") as raised:
        training.run(app, {}, must_be_savable=True)
    assert "@app.saver" in raised.value.todo


def test_a_class_without_a_format_is_reported_before_the_data_is_read_for_a_version() -> None:
    class Own:
        def fit(self, features: Any, target: Any) -> None: ...

        def predict(self, features: Any) -> Any:
            return [0] * len(features)

    app, read = App("own", target="y"), []

    @app.data_reader
    def read_table() -> pd.DataFrame:
        read.append(1)
        return table()

    app.model(Own)
    with pytest.raises(ModelError, match="belongs to no framework that mlapp can save safely"):
        training.run(app, must_be_savable=True)
    assert not read
    assert app.train().metrics is not None  # it can be tried in a notebook


@pytest.mark.parametrize(
    ("model", "predict", "message"),
    [
        (DBSCAN, "labels", "A DBSCAN has no method predict."),
        (LinearSVC, "proba", "a LinearSVC does not return probabilities"),
        (LocalOutlierFactor, "labels", "A LocalOutlierFactor has no method predict."),
    ],
)
def test_a_model_that_cannot_predict_is_reported_before_the_data_is_read(
    model: Any, predict: Any, message: str
) -> None:
    app, read = App("speechless", target="y" if model is LinearSVC else None, predict=predict), []
    app.data_reader(lambda: read.append(1))
    app.model(model)
    with pytest.raises(ModelError, match=message) as raised:
        app.train()
    assert "@app.predictor" in raised.value.todo
    assert not read


@pytest.mark.parametrize("predict", ["labels", "proba"])
def test_a_model_that_can_predict_once_it_is_fitted_is_trained(predict: Any) -> None:
    app = App("stacked", target="y", predict=predict)
    app.data_reader(table)

    @app.model
    def build() -> StackingClassifier:  # its final estimator is None until it is fitted
        return StackingClassifier([("line", LogisticRegression())], cv=2)

    app.train()
    assert len(app.predict({"x": 1.0, "z": 0.0})) == 1


def test_the_check_is_a_step_and_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(round_trip, "MIN_SECONDS", 0.4)
    app, messages, rows = an_app(), [], Counter[str]()

    @app.predictor
    def slow(model: Any, features: pd.DataFrame) -> list[float]:
        rows[messages[-1]] += len(features)
        time.sleep(0.02 * len(features))
        return features["x"].tolist()

    training.run(app, progress=messages.append)
    assert messages[-1] == "check"
    assert 0 < rows["check"] < 150  # the sample's own predictions, and as many as take twice its limit


@pytest.mark.parametrize("case", ["same", "forgets", "depends"])
def test_of_a_predictor_that_takes_long_one_row_is_compared(case: str, monkeypatch, caplog) -> None:
    monkeypatch.setattr(round_trip, "MIN_SECONDS", 0.02)
    monkeypatch.setattr(round_trip, "TIME_SHARE", 0.0)
    app, messages = an_app(), []

    @app.predictor
    def slow(model: Any, features: pd.DataFrame) -> list[float]:
        time.sleep(0.02)
        shift = features["x"].mean() if case == "depends" else model.coef_[0, 0]
        return (features["x"] + shift).tolist()

    if case == "forgets":
        app.saver(lambda model, path: (path / "nothing").touch())
        app.loader(lambda path: LogisticRegression().fit([[0.0, 0.0], [9.0, 9.0]], ["low", "high"]))
        with pytest.raises(ModelError, match="saved and reloaded model does not predict like the trained one: row 0"):
            app.train()
        return
    trained = training.run(app, progress=messages.append)
    assert re.fullmatch(r"check one row only: predictor 'slow' in \S+ takes \d\.\d s for it", messages[-1])
    assert trained.batching is (case == "same")
    assert ("gives a row a different value when other rows" in caplog.text) is (case == "depends")


def test_flyte_s_training_is_checked_too(tmp_path: Path, caplog) -> None:
    app = an_app()
    app.feature_transformer(rank)
    splits, out = tmp_path / "splits", tmp_path / "out"
    table_folder = tmp_path / "table"
    for folder in (splits, out, table_folder):
        folder.mkdir()
    flyte_stages.run_read_step(app, {}, table_folder)
    flyte_stages.run_split_step(app, {}, table_folder, splits)
    flyte_stages.run_train_step(app, {}, splits, out)
    assert json.loads((out / "trained.json").read_text())["batching"] is False
    assert "feature_transformer 'rank'" in caplog.text
