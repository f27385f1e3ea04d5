"""Keras: the default trainer, saving, and the errors of models that cannot be saved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris

from mlapp import App, frameworks
from mlapp.errors import DataError, ModelError
from mlapp.prediction import load_predictor
from mlapp.progress import Progress, listen_progress

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras

KERAS = frameworks.get_framework("keras")
IRIS = load_iris(as_frame=True).frame
FEATURES, TARGET = IRIS.drop(columns="target"), IRIS["target"]


def net(outputs: int = 3, activation: str | None = None) -> Any:
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    return keras.Sequential([keras.Input((4,)), dense(16, activation="relu"), dense(outputs, activation=activation)])


def test_text_classes_are_kept_and_a_version_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = App("flowers", target="kind")
    names = np.array(["setosa", "versicolor", "virginica"])
    app.data_reader(lambda: IRIS.assign(kind=names[TARGET]).drop(columns="target"))
    app.model(lambda: net(activation="softmax"))

    trained = app.train(learning_rate=0.05, epochs=20)
    assert trained.metrics["test"]["accuracy"] > 0.8
    assert app.train(learning_rate=0.05, epochs=20).metrics == trained.metrics
    version = app.save(trained)
    assert {*version.manifest.files} == {"model.keras", "labels.json", "baseline.json"}
    loaded = load_predictor(app, version)
    assert loaded.predict(FEATURES).tolist() == KERAS.predictor(trained.estimator, FEATURES).tolist()
    assert set(loaded.predict(FEATURES)) <= set(names)

    further = app.train(from_="latest", epochs=1, learning_rate=0.0)
    for before, after in zip(trained.estimator.get_weights(), further.estimator.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_scores_may_be_logits_or_probabilities(activation: str | None) -> None:
    model = KERAS.trainer(net(activation=activation), FEATURES, TARGET, epochs=20, learning_rate=0.05)
    assert model.loss.from_logits == (activation is None)
    assert KERAS.evaluator(model, FEATURES, TARGET)["accuracy"] > 0.8


def test_one_sigmoid_answers_with_two_classes() -> None:
    kind = pd.Series(np.where(TARGET == 0, "setosa", "other"))
    model = KERAS.trainer(net(1, "sigmoid"), FEATURES, kind, epochs=20, learning_rate=0.05)
    assert KERAS.evaluator(model, FEATURES, kind)["accuracy"] > 0.9
    assert KERAS.predictor(model, FEATURES.head(1)).tolist() == ["setosa"]
    with pytest.raises(ModelError, match="3 classes, but the model ends in one sigmoid"):
        KERAS.trainer(net(1, "sigmoid"), FEATURES, TARGET)


def test_numbers_are_learned_with_one_output_and_a_compiled_model_stays_as_it_is() -> None:
    model = net(1)
    model.compile(keras.optimizers.Adam(0.02), "mae")
    model = KERAS.trainer(model, FEATURES, TARGET.astype(float), epochs=40)
    assert model.loss == "mae"
    assert KERAS.evaluator(model, FEATURES, TARGET)["r2"] > 0.8
    assert KERAS.predictor(model, FEATURES.head(1)).shape == (1,)


def test_it_stops_early_keeps_the_best_epoch_and_tells_how_far_it_is() -> None:
    messages: list[Progress] = []
    with listen_progress(messages.append):
        KERAS.trainer(net(), FEATURES, TARGET, epochs=500, learning_rate=0.2, patience=3)
    assert 3 < len(messages) < 500
    losses = [progress.metrics["val_loss"] for progress in messages]
    assert min(losses) == losses[-4]
    assert str(messages[0]).startswith("1 of 500, loss ")


def test_a_training_that_stopped_continues_and_ends_where_an_undisturbed_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def dropping() -> Any:
        keras.utils.clear_session()  # counts the layers' names from zero, as another process does
        keras.utils.set_random_seed(0)
        dense, dropout = keras.layers.Dense, keras.layers.Dropout
        layers = [keras.Input((4,)), dense(16, activation="relu"), dropout(0.2, seed=1), dense(3)]
        return keras.Sequential(layers)

    def trained(stopped_after: int | None = None) -> tuple[list[int], Any]:
        messages: list[int] = []

        def hear(progress: Progress) -> None:
            messages.append(progress.step)
            if progress.step == stopped_after:
                raise KeyboardInterrupt

        with listen_progress(hear):
            model = KERAS.trainer(dropping(), FEATURES, TARGET, epochs=12, learning_rate=0.05, checkpoint_every=0)
        return messages, model.get_weights()

    whole = trained()[1]
    with pytest.raises(KeyboardInterrupt):
        trained(stopped_after=8)
    messages, resumed = trained()
    assert messages[0] == 8  # the seventh was the last that was written
    assert not list((tmp_path / ".mlapp/checkpoints").iterdir())
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one, other)

    with pytest.raises(KeyboardInterrupt):
        trained(stopped_after=3)
    [file] = (tmp_path / ".mlapp/checkpoints").iterdir()
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ModelError, match="is truncated or damaged") as raised:
        trained()
    assert raised.value.todo.startswith("Delete it")


def test_what_cannot_be_learned() -> None:
    with pytest.raises(ModelError, match=r"The loss became (nan|inf) in epoch \d+, batch \d+"):
        KERAS.trainer(net(1), FEATURES * 1e18, TARGET.astype(float), learning_rate=1e9)
    with pytest.raises(DataError, match="Column 'city' contains"):
        KERAS.trainer(net(), FEATURES.assign(city="Bern"), TARGET)
    with pytest.raises(DataError, match=r"Column 'petal width \(cm\)' of the features has missing"):
        KERAS.trainer(net(), FEATURES.assign(**{"petal width (cm)": np.nan}), TARGET)
    with pytest.raises(ModelError, match=r"cannot take features of the shape \[32, 3\]"):
        KERAS.trainer(net(), FEATURES.iloc[:, :3], TARGET)


def test_code_in_a_model_is_not_saved_and_not_loaded(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda rows: rows * 2)])
    with pytest.raises(ModelError, match="cannot be saved so that it can be loaded") as raised:
        KERAS.save(model, tmp_path, "keras", ())
    assert "Lambda" in raised.value.todo
    model.save(tmp_path / "elsewhere.keras")
    with pytest.raises(ModelError, match="not a Keras model that can be loaded safely"):
        KERAS.load_file(tmp_path / "elsewhere.keras", ())


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    KERAS.save(net(), tmp_path, "keras", ())
    file = tmp_path / "model.keras"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ModelError, match=r"model\.keras is not a Keras model"):
        KERAS.load(tmp_path, "keras", ())
