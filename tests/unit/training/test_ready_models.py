"""Models that are trained already, and apps that only predict: neither reads data."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mlapp import App
from mlapp.errors import DeclarationError, ModelError, UsageError

TABLE = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [0.0, 1.0, 0.0, 1.0]})


def test_a_file_is_served_without_a_reader_by_the_names_that_the_model_knows(project, mlapp) -> None:
    root = project("from mlapp import App\napp = App('sums')\napp.model('ready.joblib')\n")
    joblib.dump(LinearRegression().fit(TABLE, TABLE["a"] * 2), root / "ready.joblib")
    trained = mlapp("train")
    assert trained.code == 0, trained.err
    assert "without metrics" in trained.err
    (root / "new.json").write_text('[{"a": 5, "b": 1}]')
    output = mlapp("predict", "--features", "new.json")
    assert json.loads(output.out) == pytest.approx([10.0])
    wrong = mlapp("predict", "--features", "-")
    assert wrong.code != 0


def test_a_model_of_arrays_or_texts_says_what_it_knows() -> None:
    app = App("arrays")
    app.model(trained=True)(lambda: LinearRegression().fit(TABLE.to_numpy(), TABLE["a"]))
    assert app.train().schema.features.shape == [2]
    cities = pd.DataFrame({"city": ["Bern", "Rome"] * 5})
    encoded = make_pipeline(make_column_transformer((OneHotEncoder(), ["city"])), LogisticRegression())
    app = App("cities")
    app.model(trained=True)(lambda: encoded.fit(cities, [0, 1] * 5))
    assert app.train().schema.features.names == ["city"]
    assert app.predict([{"city": "Rome"}]).tolist() == [1]


def prediction_only() -> App:
    app = App("lengths")

    @app.model(trained=True)
    def build() -> LinearRegression:
        return LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])

    @app.feature_loader(example=["abc"])
    def load(inputs: list[str]) -> np.ndarray:
        return np.array([[float(len(text))] for text in inputs])

    return app


def test_a_feature_loaders_example_describes_what_it_reads() -> None:
    app = prediction_only()
    trained = app.train()
    assert trained.schema.inputs.example == ["abc"]
    assert trained.metrics == {}
    assert app.predict(["ab", "a"]).tolist() == pytest.approx([4.0, 2.0])


def test_an_example_that_the_feature_loader_cannot_read_is_reported_in_training() -> None:
    app = prediction_only()
    app.feature_loader(example=[3])(app.stages["feature_loader"].function)
    with pytest.raises(DeclarationError, match="cannot read its own example: TypeError"):
        app.train()


def test_a_model_to_train_still_needs_a_reader() -> None:
    app = App("flowers")
    app.model(LinearRegression)
    with pytest.raises(DeclarationError, match="has no data_reader"):
        app.train()


def test_a_path_in_the_place_of_a_model_or_a_version_gives_advice() -> None:
    app = App("flowers")
    with pytest.raises(UsageError, match="takes a trained model, not a path") as error:
        app.save("model.joblib")  # type: ignore[arg-type]
    assert "app.save() stores the model as the next version" in error.value.todo
    with pytest.raises(UsageError, match="a version, an alias or 'latest'") as error:
        app.load("models/model.joblib")
    assert "app.model('models/model.joblib')" in error.value.todo


def test_a_ready_model_is_checked_as_a_trained_one_is() -> None:
    app = App("ready")
    app.model(trained=True)(lambda: LinearRegression().fit(TABLE, TABLE["a"] * 2))
    app.feature_transformer(lambda features: features - features.mean())
    assert not app.train().batching

    @app.saver
    def save(model: LinearRegression, folder: Path) -> None:
        (folder / "model.json").write_text(json.dumps(model.coef_.tolist()))

    @app.loader
    def load(folder: Path) -> LinearRegression:
        raise OSError("no such format")

    with pytest.raises(ModelError, match="can be saved but not loaded: .*no such format"):
        app.train()
