"""The metrics that a framework measures by itself: their names, their values, and that none loses a fitted model."""

from __future__ import annotations

import logging
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from mlapp import App
from mlapp.errors import DataError, DeclarationError, ModelError
from mlapp.frameworks import metrics

RANDOM = np.random.default_rng(0)
TABLE = pd.DataFrame(RANDOM.normal(size=(80, 3)), columns=["a", "b", "c"])
CLASSES = TABLE.assign(y=np.where(TABLE["a"] + TABLE["b"] / 4 > 0, "yes", "no"))


def trained(table: pd.DataFrame, model, target: str | list[str] | None = "y", **options):
    app = App("measured", target=target, **options)
    app.data_reader(lambda: table)
    app.model(lambda: model)
    return app, app.train()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2))
def test_they_are_scikit_learn_s(rows):
    target, scores = np.array([row[0] for row in rows]), np.array([row[1] / 5 for row in rows])
    if len(set(target.tolist())) < 2:
        return
    values = metrics.compute_classification_metrics(target, scores > 0.5, scores)
    assert values == pytest.approx(
        {
            "accuracy": sklearn.accuracy_score(target, scores > 0.5),
            "f1_macro": sklearn.f1_score(target, scores > 0.5, average="macro"),
            "roc_auc": sklearn.roc_auc_score(target, scores),
            "average_precision": sklearn.average_precision_score(target, scores),
        }
    )


@pytest.mark.parametrize("model", [LogisticRegression(), LinearSVC(), make_pipeline(StandardScaler(), LinearSVC())])
def test_two_classes_are_measured_by_their_ranking_too(model):
    _, result = trained(CLASSES, model)
    assert list(result.metrics["test"]) == ["accuracy", "f1_macro", "roc_auc", "average_precision"]
    assert result.metrics["train"]["roc_auc"] > 0.9


def test_more_classes_are_not():
    table = TABLE.assign(y=["x", "y", "z", "z"] * 20)
    _, result = trained(table, LogisticRegression())
    assert list(result.metrics["test"]) == ["accuracy", "f1_macro"]


def test_a_pipeline_that_clusters_is_measured_on_what_its_last_step_gets():
    table = TABLE.assign(a=TABLE["a"].where(TABLE["a"] > -1))
    app, result = trained(table, make_pipeline(SimpleImputer(), StandardScaler(), KMeans(3, n_init=2)), None)
    assert result.metrics["test"]["clusters"] == 3
    assert -1 <= result.metrics["test"]["silhouette"] <= 1
    assert len(app.predict([[None, 0.0, 1.0]])) == 1


@pytest.mark.parametrize(
    ("model", "metrics"),
    [(PCA(2), {"score"}), (make_pipeline(OneHotEncoder(), KMeans(2, n_init=2)), {"clusters", "silhouette"})],
)
def test_other_models_without_a_target(model, metrics):
    app = App("plain")
    app.data_reader(lambda: TABLE.round())
    app.model(lambda: model)
    app.predictor(lambda model, features: [0] * len(features))
    for split in app.train().metrics.values():
        assert split.keys() == metrics
        assert all(map(math.isfinite, split.values()))


def test_a_metric_that_cannot_be_computed_loses_no_model(monkeypatch, caplog):
    def fail(*arguments):
        raise ValueError("out of memory")

    monkeypatch.setattr(metrics, "compute_classification_metrics", fail)
    with caplog.at_level(logging.WARNING, logger="mlapp"):
        app, result = trained(CLASSES, LogisticRegression())
    assert result.metrics == {"train": {}, "test": {}}
    assert "No metrics: the default evaluator of sklearn for model '<lambda>' in test_default_metrics.py" in caplog.text
    assert "raised ValueError: out of memory" in caplog.text
    assert app.predict([[5.0, 0.0, 0.0]]).tolist() == ["yes"]


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_several_targets_keep_their_names(dtype):
    table = TABLE.assign(price=TABLE["a"] * 10, size=TABLE["b"] * 10).astype({"price": dtype, "size": dtype})
    app, result = trained(table, LinearRegression(), ["price", "size"])
    assert set(result.metrics["test"]) == {
        *("r2", "mae", "rmse", "r2_price", "mae_price", "rmse_price", "r2_size", "mae_size", "rmse_size")
    }
    assert result.schema.predictions.names == ["price", "size"]
    assert list(app.predict([[0.0, 0.0, 0.0]]).columns) == ["price", "size"]


def test_several_classes_keep_their_names():
    table = TABLE.assign(one=TABLE["a"] > 0, two=np.where(TABLE["b"] > 0, 1, 2))
    app, result = trained(table, RandomForestClassifier(5), ["one", "two"])
    assert set(result.metrics["train"]) == {
        *("accuracy", "accuracy_one", "f1_macro_one", "accuracy_two", "f1_macro_two")
    }
    assert list(app.predict([[0.0, 0.0, 0.0]]).columns) == ["one", "two"]


def test_probabilities_by_class_without_a_predictor():
    app, result = trained(CLASSES, LogisticRegression(), predict="proba")
    (row,) = app.predict([[5.0, 0.0, 0.0]]).to_dict("records")
    assert list(row) == ["no", "yes"]
    assert sum(row.values()) == pytest.approx(1)
    assert result.schema.predictions.names == ["no", "yes"]
    assert "accuracy" in result.metrics["test"]


def test_probabilities_that_a_model_does_not_give_are_refused_before_the_data_is_read():
    app = App("none", target="y", predict="proba")
    app.data_reader(lambda: pytest.fail("the data was read"))
    app.model(RandomForestRegressor)
    with pytest.raises(ModelError, match="RandomForestRegressor does not return probabilities"):
        app.train()
    with pytest.raises(DeclarationError, match="has its own predictor"):
        app.predictor(lambda model, features: [])
    with pytest.raises(DeclarationError, match="predict='prob' is not known"):
        App("none", predict="prob")


def test_missing_texts_of_pandas_are_reported_with_their_column():
    table = CLASSES.assign(city=pd.array(["x", None] * 40, dtype="string"))
    with pytest.raises(DataError, match=r"Column 'city' of the features \(string\) has missing values as pd.NA"):
        trained(table, make_pipeline(OneHotEncoder(), LogisticRegression()))
