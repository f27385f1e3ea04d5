"""Features other than tables: each works in training, serving and prediction, or is refused with advice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from torch.utils.data import Dataset, TensorDataset

from mlapp import App
from mlapp.errors import DataError, InputError
from mlapp.schema.csv import read_csv
from mlapp.schema.feature_containers import count_feature_rows, take_feature_rows
from mlapp.serving.decoding.codec import Codec
from mlapp.serving.inference.served_model import serve_trained_model

ROWS = 40
TEXTS = ["I love it", "I hate it"] * (ROWS // 2)


class Rows(Dataset):
    def __init__(self, data: torch.Tensor) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> Any:
        return self.data[row]


def an_app(features: Callable[[pd.DataFrame], Any], predict: Callable[..., Any]) -> App:
    app = App("forms", target="y")
    app.data_reader(lambda: pd.DataFrame({"text": TEXTS, "y": [0, 1] * (ROWS // 2)}))

    @app.data_parser
    def parse(data: pd.DataFrame) -> Any:
        return features(data), data["y"]

    @app.model
    def build() -> LogisticRegression:
        return LogisticRegression()

    @app.trainer
    def fit(model: Any, features: Any, target: Any) -> Any:
        return model.fit(np.arange(len(target)).reshape(-1, 1), target)

    app.evaluator(lambda model, features, target: 1.0)
    app.predictor(predict)
    return app


def serve_inputs(app: App, inputs: Any) -> Any:
    """What a server answers to two requests that meet in a batch, each with the same inputs."""
    codec: Codec = serve_trained_model(app._trained).codec
    part = codec.decode_json(msgspec.json.encode({"inputs": inputs}))
    features = codec.combine_parts([part, part])
    predictor = codec.predictor
    predictions = list(predictor.call_predictor(predictor.transform_features(features)))
    assert predictions[: part.rows] == predictions[-part.rows :]
    return predictions[: part.rows]


def test_a_series_of_texts_comes_as_a_series() -> None:
    app = App("texts", target="y")
    app.data_reader(lambda: pd.DataFrame({"text": TEXTS, "y": ["good", "bad"] * (ROWS // 2)}))
    app.data_parser(lambda data: (data["text"], data["y"]))
    app.feature_transformer(lambda features: features.str.lower())
    app.model(lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()))
    assert app.train().batching
    assert app.predict(["I LOVE it"]).tolist() == ["good"]
    assert serve_inputs(app, ["I LOVE it", "I hate it"]) == ["good", "bad"]
    with pytest.raises(InputError, match="row 1: 3 is not a string"):
        app.predict(["a", 3])


def test_a_dict_of_arrays() -> None:
    def features(data: pd.DataFrame) -> dict[str, np.ndarray]:
        return {"ids": np.arange(2 * len(data)).reshape(-1, 2), "mask": np.ones(len(data), "float32")}

    app = an_app(features, lambda model, features: (features["ids"].sum(axis=1) * features["mask"]).tolist())
    trained = app.train()
    assert trained.batching
    assert [column.rows for column in trained.baseline.predictions] == [32]
    one = {"ids": [1, 2], "mask": 1.0}
    for inputs in (one, [one], {"ids": [[1, 2]], "mask": [1.0]}):
        assert serve_inputs(app, inputs) == [3.0]
        assert app.predict(inputs) == [3.0]
    with pytest.raises(InputError, match="array 'ids' is not of int64 with rows of shape \\[2\\]"):
        app.predict([{"ids": [1], "mask": 1.0}])
    with pytest.raises(InputError, match="array 'ids' is missing"):
        app.predict({"mask": [1.0]})


def test_a_dataset_of_pytorch() -> None:
    def features(data: pd.DataFrame) -> Rows:
        return Rows(torch.arange(2.0 * len(data)).reshape(-1, 2))

    app = an_app(features, lambda model, features: [float(features[row].sum()) for row in range(len(features))])
    assert app.train().batching
    assert serve_inputs(app, [[1.0, 2.0], [3.0, 4.0]]) == [3.0, 7.0]
    assert app.predict([[1.0, 2.0]]) == [3.0]


def test_a_tensor_dataset_of_pytorch() -> None:
    def features(data: pd.DataFrame) -> TensorDataset:
        return TensorDataset(torch.arange(2.0 * len(data)).reshape(-1, 2))

    app = an_app(features, lambda model, features: [float(row.sum()) for (row,) in features])
    assert app.train().batching
    assert serve_inputs(app, [[1.0, 2.0], [3.0, 4.0]]) == [3.0, 7.0]
    assert app.predict([[1.0, 2.0]]) == [3.0]


def test_one_row_of_an_array_without_the_list_around_it_is_reported() -> None:
    app = an_app(lambda data: np.zeros((len(data), 2, 2)), lambda model, features: features.sum(axis=(1, 2)).tolist())
    app.train()
    with pytest.raises(InputError, match=r"inputs is a single row of shape \[2, 2\], not a list of rows"):
        app.predict([[1, 2], [3, 4]])
    with pytest.raises(InputError, match=r"has the shape \[4\]; the model takes a list of rows of shape \[2, 2\]"):
        app.predict([1, 2, 3, 4])


def test_a_dict_of_lists_is_refused_before_the_training() -> None:
    app = an_app(lambda data: {"ids": [[1, 2]] * len(data)}, lambda model, features: [1] * len(features["ids"]))
    with pytest.raises(DataError, match="a dict of values that are not arrays") as raised:
        app.train()
    assert "np.asarray" in raised.value.todo


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (pd.DataFrame({"x": [1, 2, 3]}, index=[7, 8, 9]), {"x": [3, 1, 1]}),
        (pd.Series([1, 2, 3], index=[7, 8, 9]), [3, 1, 1]),
        (np.array([1, 2, 3]), [3, 1, 1]),
        (torch.tensor([1, 2, 3]), [3, 1, 1]),
        ([1, 2, 3], [3, 1, 1]),
        ({"x": np.array([1, 2, 3])}, {"x": [3, 1, 1]}),
        (scipy.sparse.coo_matrix([[1], [2], [3]]), [[3], [1], [1]]),
        (pa.table({"x": [1, 2, 3]}), {"x": [3, 1, 1]}),
        (pl.DataFrame({"x": [1, 2, 3]}), {"x": [3, 1, 1]}),
        (Rows(torch.tensor([1, 2, 3])), [3, 1, 1]),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("rows", [[2, 0, 0], np.array([2, 0, 0])], ids=["list", "array"])
def test_rows_of_any_form_are_taken_by_one_function(features: Any, expected: Any, rows: Any) -> None:
    selected = take_feature_rows(features, rows)
    assert count_feature_rows(selected) == 3
    if isinstance(features, pd.DataFrame):
        assert selected.index.tolist() == [0, 1, 2]
    if isinstance(features, Rows):
        selected = [int(selected[row]) for row in range(3)]
    elif hasattr(selected, "toarray"):
        selected = selected.toarray().tolist()
    elif isinstance(features, pd.DataFrame):
        selected = selected.to_dict("list")
    elif isinstance(features, (pa.Table, dict)):
        selected = {"x": [int(value) for value in np.asarray(selected["x"])]}
    elif isinstance(features, pl.DataFrame):
        selected = selected.to_dict(as_series=False)
    assert (selected if isinstance(selected, (dict, list)) else selected.tolist()) == expected


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_an_array_of_a_table_s_columns_takes_their_names(dtype: str) -> None:
    app = App("arrays", target="y")
    table = pd.DataFrame({"a": range(ROWS), "b": range(100, 100 + ROWS), "y": [0, 1] * (ROWS // 2)})
    app.data_reader(lambda: table)
    app.data_parser(lambda data: (data[["b", "a"]].to_numpy().astype(dtype), data["y"]))
    app.model(LogisticRegression)
    app.predictor(lambda model, features: features.tolist())
    app.train()
    record = {"a": 1, "b": 101}
    frame = pd.DataFrame([record])
    for inputs in ([[101, 1]], [record], record, {"a": [1], "b": [101]}, frame, frame[["b", "a"]], table[1:2]):
        assert app.predict(inputs) == [[101, 1]]
    assert serve_inputs(app, [record]) == [[101, 1]]
    schema = app._trained.schema.features
    assert read_csv(b"a,b,y\n1,101,0\n", schema) == read_csv(b"101,1\n", schema) == [[101, 1]]
    for inputs in ([{"a": 1, "c": 2}], frame[["a"]]):
        with pytest.raises(InputError, match="column 'b' is missing"):
            app.predict(inputs)


def test_an_array_of_floats_refuses_what_it_would_make_infinite() -> None:
    app = an_app(lambda data: np.ones((len(data), 2), "float32"), lambda model, features: features.tolist())
    app.train()
    assert app.predict([[1.5, None]])[0][0] == 1.5
    with pytest.raises(InputError, match="not an array of float32: a value is out of range"):
        app.predict([[1e39, 1.0]])


def test_tables_of_polars_and_arrow_are_predicted_as_pandas_are() -> None:
    app = App("tables", target="y")
    table = pd.DataFrame({"n": range(ROWS), "s": ["a", None] * (ROWS // 2), "y": [0, 1] * (ROWS // 2)})
    table["d"] = pd.date_range("2024-01-01", periods=ROWS)
    app.data_reader(lambda: table)
    app.model(LogisticRegression)
    app.trainer(lambda model, features, target: model)
    app.evaluator(lambda model, features, target: 1.0)
    app.predictor(lambda model, features: features.astype(str).to_numpy().tolist())
    app.train()
    arrow = pa.Table.from_pandas(table)
    for other in (pl.from_pandas(table), pl.from_pandas(table).lazy(), arrow, arrow.to_batches()[0]):
        assert app.predict(other) == app.predict(table)


def test_lists_in_cells_stay_lists() -> None:
    app = App("embeddings", target="y")
    app.data_reader(lambda: pd.DataFrame({"v": [[row, 1.5] for row in range(ROWS)], "y": range(ROWS)}))
    app.feature_transformer(lambda features: np.array(features["v"].tolist()))
    app.model(LinearRegression)
    assert app.train().batching
    assert app.predict([{"v": [3, 1.5]}]).tolist() == pytest.approx([3.0])


def test_a_sparse_matrix_is_refused_before_the_training() -> None:
    app = an_app(lambda data: TfidfVectorizer().fit_transform(data["text"]), lambda model, features: [0])
    with pytest.raises(DataError, match="sparse matrix") as raised:
        app.train()
    assert "TfidfVectorizer" in raised.value.todo


@pytest.mark.parametrize("name", ['height 5"', "two\nlines", "back\\slash", "", "größe", 0])
@pytest.mark.parametrize("form", ["records", "rows", "columns"])
def test_a_column_may_have_any_name(name: Any, form: str) -> None:
    app = App("names", target="y")
    other: Any = 1 if name == 0 else "x"
    table = pd.DataFrame({name: np.arange(float(ROWS)), other: 1.0})
    app.data_reader(lambda: table.assign(y=table[name] * 2))
    app.data_parser(lambda data: (data[[name, other]].set_axis([name, other], axis=1), data["y"]))
    app.model(LinearRegression)

    @app.predictor
    def predict(model: Any, features: pd.DataFrame) -> list[float]:
        return (features[name] * 2).tolist()

    app.train(test_size=0)
    row = {str(name): 3.0, str(other): 1.0}
    inputs = {"records": [row], "rows": [list(row.values())], "columns": {key: [value] for key, value in row.items()}}
    assert serve_inputs(app, inputs[form]) == [6.0]
    assert app.predict(table) == (table[name] * 2).tolist()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "a"], "Two columns are named 'a'"),
        (["a", 1], "by strings and some by integers"),
        ([("a", "b"), "c"], "JSON cannot"),
    ],
)
def test_names_that_cannot_be_served_are_refused_before_the_training(names: list[Any], message: str) -> None:
    app = App("names", target="y")
    app.data_reader(lambda: pd.DataFrame({"x": np.arange(float(ROWS)), "z": 1.0, "y": range(ROWS)}))
    app.data_parser(lambda data: (data[["x", "z"]].set_axis(names, axis=1), data["y"]))
    app.model(LinearRegression)
    with pytest.raises(DataError, match=message):
        app.train()
