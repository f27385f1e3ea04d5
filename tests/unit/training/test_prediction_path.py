"""Predictions from the reader use the stages of training; predictions of sent data use those of the server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlapp import App, prediction, training
from mlapp.errors import InputError
from mlapp.flyte.batch_prediction import run_predict_step


class Doubles:
    def fit(self, features, target):
        return self

    def predict(self, features):
        return np.asarray(features["x"]) * 2


def an_app() -> App:
    """Predicts twice `x`; a client sends percents, the parser scales."""
    app = App("scaled", target="y")

    @app.data_reader
    def read(n: int = 20) -> pd.DataFrame:
        return pd.DataFrame({"x": np.arange(1, n + 1, dtype=float), "note": "n", "y": [0, 1] * (n // 2)})

    @app.data_loader
    def load(data: pd.DataFrame, offset: float = 0.0) -> pd.DataFrame:
        return data.assign(x=data["x"] + offset)

    @app.data_parser
    def parse(data: pd.DataFrame, scale: float = 1.0) -> tuple[pd.DataFrame, pd.Series]:
        target = data.pop("y")
        return data[["x"]] * scale, target

    @app.feature_loader
    def accept(inputs: list[dict[str, float]]) -> pd.DataFrame:
        return pd.DataFrame(inputs) / 100

    app.model(Doubles)
    app.saver(lambda model, folder: (folder / "model.txt").write_text("doubles"))
    app.loader(lambda folder: Doubles())
    return app


def test_what_the_reader_reads_does_not_go_through_the_feature_loader() -> None:
    app = an_app()
    app.train()
    assert app.predict(n=2).tolist() == [2.0, 4.0]
    assert app.predict([{"x": 100.0}]).tolist() == [2.0]


@pytest.mark.needs("pyarrow")
def test_parser_and_loader_have_the_parameters_of_the_training(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = an_app()
    app.train(scale=1000, offset=1.0)
    version = app.save()
    assert app.predict(n=2).tolist() == [4000.0, 6000.0]
    assert app.load(1).predict_features(pd.DataFrame({"x": [1.0]})).tolist() == [2.0]
    again = an_app()
    assert again.predict(n=2, version=1).tolist() == [4000.0, 6000.0]
    assert again.predict(n=2, version=1, scale=10.0).tolist() == [40.0, 60.0]

    bound = {"data_reader": {"n": 2}, "data_loader": {"offset": 0.0}, "data_parser": {"scale": 1.0}}
    run_predict_step(again, bound, version, tmp_path / "batch.parquet")
    assert pd.read_parquet(tmp_path / "batch.parquet")["prediction"].tolist() == [4000.0, 6000.0]


def test_columns_that_training_knew_and_did_not_use_are_left_out_and_others_refused() -> None:
    app = App("plain", target="y")
    app.data_reader(lambda: pd.DataFrame({"x": [1.0, 2.0] * 10, "row_id": range(20), "y": [0, 1] * 10}))
    app.data_parser(lambda data: (data[["x"]], data["y"]))
    app.model(Doubles)
    predictor = prediction.make_predictor(app.train())
    record = {"x": 3.0, "row_id": 1, "y": 1}
    for inputs in ([record], record, {name: [value] for name, value in record.items()}, pd.DataFrame([record])):
        assert list(predictor.predict(inputs)) == [6.0]
        unknown = inputs.assign(z=1) if hasattr(inputs, "assign") else inputs
        if isinstance(inputs, dict):
            unknown = inputs | {"z": [1] if isinstance(inputs["x"], list) else 1}
        elif isinstance(inputs, list):
            unknown = [record | {"z": 1}]
        with pytest.raises(InputError, match="'z'"):
            predictor.predict(unknown)
        relaxed = prediction.make_predictor(app.train(), extra="ignore")
        assert list(relaxed.predict(unknown)) == [6.0]


def test_parameters_of_the_parser_are_given_like_those_of_the_reader() -> None:
    features = training.read_features(an_app(), {"n": 2, "scale": 3.0})
    assert features["x"].tolist() == [3.0, 6.0]
