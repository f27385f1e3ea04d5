"""Every output gives the same values for each return type of a predictor."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import logging
import math
import uuid
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
import pytest
import scipy.sparse
import torch

from mlapp import App
from mlapp.errors import DataError
from mlapp.normalization import normalize_predictions, normalize_to_rows, normalize_to_table

pytestmark = pytest.mark.anyio
DAY = datetime.datetime(2026, 1, 31)
IDENTITY = uuid.UUID("12345678123456781234567812345678")


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


@dataclasses.dataclass
class Point:
    x: float
    size: Size


class Answer(pydantic.BaseModel):
    label: str
    when: datetime.date


RETURNED = {
    "integer names": (pd.DataFrame({0: [1.0, 2.0], 1: [3.0, 4.0]}), [{"0": 1.0, "1": 3.0}, {"0": 2.0, "1": 4.0}]),
    "float names": (pd.DataFrame({0.5: [1, 2]}), [{"0.5": 1}, {"0.5": 2}]),
    "boolean names": (
        pd.DataFrame({False: [0.1, 0.2], True: [0.9, 0.8]}),
        [{"False": 0.1, "True": 0.9}, {"False": 0.2, "True": 0.8}],
    ),
    "names of two levels": (
        pd.DataFrame([[1], [2]], columns=pd.MultiIndex.from_tuples([("a", 1)])),
        [{"a.1": 1}, {"a.1": 2}],
    ),
    "nanoseconds": (np.array([DAY, DAY], dtype="M8[ns]"), ["2026-01-31T00:00:00"] * 2),
    "microseconds": (np.array([DAY, DAY], dtype="M8[us]"), ["2026-01-31T00:00:00"] * 2),
    "days": (np.array([DAY, "NaT"], dtype="M8[D]"), ["2026-01-31", None]),
    "a series of times": (pd.Series([DAY, None]).astype("datetime64[ns]"), ["2026-01-31T00:00:00", None]),
    "zoned times": (pd.Series([DAY, DAY]).dt.tz_localize("UTC"), ["2026-01-31T00:00:00+00:00"] * 2),
    "durations": (np.array([1, 90], dtype="m8[s]"), ["PT1S", "PT90S"]),
    "a sparse matrix": (scipy.sparse.csr_matrix([[0.0, 1.0], [2.0, 0.0]]), [[0.0, 1.0], [2.0, 0.0]]),
    "a sparse array": (scipy.sparse.csr_array([[0, 1], [2, 0]]), [[0, 1], [2, 0]]),
    "a polars table": (pl.DataFrame({"a": [1, None], "b": ["x", "y"]}), [{"a": 1, "b": "x"}, {"a": None, "b": "y"}]),
    "a polars column": (pl.Series([1, 2]), [1, 2]),
    "an Arrow table": (
        pa.table({"a": [1, None], "d": [DAY, None]}),
        [{"a": 1, "d": "2026-01-31T00:00:00"}, {"a": None, "d": None}],
    ),
    "an Arrow column": (pa.chunked_array([[1], [None]]), [1, None]),
    "a tensor": (torch.tensor([1.5, 2.5], requires_grad=True), [1.5, 2.5]),
    "a structured array": (
        np.array([(1, "x"), (2, "y")], dtype=[("a", int), ("b", "U1")]),
        [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
    ),
    "a masked array": (np.ma.masked_array([1, 2], [False, True]), [1, None]),
    "nullable integers": (pd.Series([1, None], dtype="Int64"), [1, None]),
    "Arrow integers": (pd.Series([1, None], dtype="int64[pyarrow]"), [1, None]),
    "categories": (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
    "intervals": (pd.cut([1, 5], [0, 2, 6]), ["(0, 2]", "(2, 6]"]),
    "dates": ([DAY.date(), None], ["2026-01-31", None]),
    "UUIDs": ([IDENTITY, IDENTITY], [str(IDENTITY)] * 2),
    "enumerations": ([Size.SMALL, Size.LARGE], ["s", "l"]),
    "decimals": ([Decimal("1.50"), Decimal("2")], [1.5, 2.0]),
    "NumPy scalars": ([np.float32(0.5), np.int8(1)], [0.5, 1]),
    "NumPy texts": ([np.str_("a"), np.str_("b")], ["a", "b"]),
    "NumPy flags": ([np.True_, np.False_], [True, False]),
    "dataclasses": ([Point(1.0, Size.SMALL)] * 2, [{"x": 1.0, "size": "s"}] * 2),
    "pydantic models": ([Answer(label="a", when=DAY.date())] * 2, [{"label": "a", "when": "2026-01-31"}] * 2),
    "nested values": (
        [{"at": DAY, "p": np.array([0.5, 0.5])}] * 2,
        [{"at": "2026-01-31T00:00:00", "p": [0.5, 0.5]}] * 2,
    ),
    "a tuple": ((1, 2), [1, 2]),
    "long floats": (np.array([1.5, 2.5], dtype=np.longdouble), [1.5, 2.5]),
}
"""What a predictor returns for two rows, and the values that it stands for."""


def app_of(returned: object) -> App:
    """An app whose predictor returns, for rows of `x`, what stands at those places of `returned`."""
    app = App("forms", target="y")
    app.data_reader(lambda: pd.DataFrame({"x": [0, 1], "y": [0, 1]}))
    app.model(lambda: "model", trained=True)
    app.data_splitter(lambda data: {"train": data})
    app.evaluator(lambda model, features, target: 1.0)
    app.predictor(lambda model, features: at(returned, features["x"].tolist()))
    return app


def at(returned: object, places: list[int]) -> object:
    if isinstance(returned, (list, tuple)) and len(returned) > max(places):
        return type(returned)(returned[place] for place in places)
    if hasattr(returned, "iloc"):
        return returned.iloc[places]
    if isinstance(returned, (pa.Table, pa.ChunkedArray)):
        return returned.take(places)
    return returned[places] if getattr(returned, "shape", ()) or hasattr(returned, "to_list") else returned


@pytest.mark.parametrize(("returned", "expected"), RETURNED.values(), ids=RETURNED)
async def test_each_way_out_answers_the_same(serve, tmp_path: Path, returned, expected):
    app = app_of(returned)
    trained = app.train()
    rows = [[0], [1]]
    assert normalize_to_rows(app.predict(rows), "it") == expected
    written = tmp_path / "batch.parquet"
    normalize_to_table(app.predict(rows), "it").to_parquet(written)  # as batch prediction writes it
    assert len(pd.read_parquet(written)) == 2
    async with serve(app, trained) as client:
        answer = await client.post("/predict", json=rows)
        assert answer.json()["predictions"] == expected, answer.text
        answer = await client.post("/invocations", json={"inputs": rows})
        assert answer.json()["predictions"] == expected
        asked = {"inputs": [{"name": "x", "shape": [2], "datatype": "INT64", "data": [0, 1]}]}
        outputs = (await client.post("/v2/models/forms/infer", json=asked)).json()["outputs"]
        described = (await client.get("/v2/models/forms")).json()["outputs"]
    messages = [(tensor["name"], tensor["datatype"], len(tensor["shape"])) for tensor in described]
    assert [(tensor["name"], tensor["datatype"], len(tensor["shape"])) for tensor in outputs] == messages
    assert columns_of(outputs) == [as_tensor(row) for row in expected]


def columns_of(outputs: list[dict]) -> list[object]:
    """The rows in the tensors of an answer."""
    if [output["name"] for output in outputs] == ["predictions"]:
        (output,) = outputs
        array = np.array(output["data"], dtype=object).reshape(output["shape"])
        return [as_tensor(value.tolist() if hasattr(value, "tolist") else value) for value in array]
    return [
        {output["name"]: as_tensor(output["data"][row]) for output in outputs} for row in range(outputs[0]["shape"][0])
    ]


def as_tensor(value: object) -> object:
    """A value as the protocol can hold it: what is missing is `null` or NaN, a list in a cell is JSON."""
    if isinstance(value, dict):
        return {
            name: json.dumps(cell, separators=(",", ":")) if isinstance(cell, list) else as_tensor(cell)
            for name, cell in value.items()
        }
    return None if value == "null" else value


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.float64(1.0), "single value"),
        (np.array(1.0), "single value"),
        (1.0, "float"),
        ({"a": 1}, "dict"),
        ("ab", "str"),
        (None, "NoneType"),
        ({1, 2}, "set"),
        ([object(), 1], "object in row 0"),
        ([1, print], "builtin_function_or_method in row 1"),
        ([1j, 2j], "complex in row 0"),
        (np.array([1j, 2j]), "complex128"),
        ([{1: 0, "1": 1}] * 2, "two keys that have the same text"),
        (pd.DataFrame([[1, 2], [3, 4]], columns=[1, "1"]), "two columns '1'"),
        ([1], "1 predictions for 2 rows"),
    ],
)
def test_what_is_no_prediction_is_refused_in_training(returned, message):
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        app_of(returned).train()


async def test_what_is_no_prediction_is_a_500_of_the_server_s_own(serve, caplog):
    returned = [1, 2]
    app = app_of(returned)
    trained = app.train()
    returned[:] = [1, object()]
    async with serve(app, trained) as client:
        with caplog.at_level(logging.ERROR):
            answer = await client.post("/predict", json=[[0], [1]])
    assert (answer.status_code, answer.json()["title"]) == (500, "The model could not predict")
    assert "object in row 1" in caplog.text


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint16", "int32", "int64", "bool"])
async def test_metadata_tells_the_datatype_that_is_sent(serve, dtype):
    app = app_of(np.array([0, 1]).astype(dtype))
    async with serve(app, app.train()) as client:
        described = (await client.get("/v2/models/forms")).json()["outputs"]
        asked = {"inputs": [{"name": "x", "shape": [2, 1], "datatype": "INT64", "data": [0, 1]}]}
        outputs = (await client.post("/v2/models/forms/infer", json=asked)).json()["outputs"]
    assert [output["datatype"] for output in outputs] == [output["datatype"] for output in described]


def test_nan_stays_a_number_until_it_is_written():
    assert math.isnan(normalize_to_rows(normalize_predictions(np.array([np.nan]), "it"), "it")[0])
