"""The codec's fast path gives the same features as the general one."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from mlapp import App
from mlapp.config import Serve
from mlapp.errors import InputError
from mlapp.prediction import make_predictor
from mlapp.schema import infer_schema
from mlapp.schema.row_codec import RowCodec
from mlapp.serving.decoding.codec import Codec
from mlapp.serving.decoding.json_body import encode_json, encode_predictions, extract_json_body_inputs
from mlapp.serving.protocols.tensor_decoding import decode_json_tensor, make_tensor_from_values
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.problems import HttpError

RECORDS = [
    {"age": 3, "income": 1.5, "city": "Bern", "vip": True, "note": "x"},
    {"age": 4, "income": None, "city": "Rome", "vip": False, "note": "é \n"},
]


@pytest.mark.parametrize("form", ["records", "rows"])
@pytest.mark.parametrize("wrap", ["inputs", "features", None])
def test_fast_way_equals_the_general_way(people, form, wrap):
    codec = Codec(make_predictor(people[1]))
    inputs = RECORDS if form == "records" else [list(record.values()) for record in RECORDS]
    body = json.dumps({wrap: inputs} if wrap else inputs).encode()
    part = codec.decode_json(body)
    assert part.tuples
    general = codec.predictor.accept_inputs(extract_json_body_inputs(body))
    pd.testing.assert_frame_equal(codec.combine_parts([part]), general, check_column_type=False)
    pd.testing.assert_frame_equal(codec.combine_parts([codec.accept_inputs(inputs)]), general, check_column_type=False)


@pytest.mark.parametrize("form", ['{"inputs": [%s]}', "[%s]"])
@pytest.mark.parametrize("columns", [{"a": [1.0, 2.0], "b": [3, 4]}, {"a": [1.0, 2.0], "t": ["x", None]}])
def test_a_duplicate_key_is_seen_in_a_batch(form, columns):
    codec = RowCodec(infer_schema(pd.DataFrame(columns)), ("inputs",))
    records = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    bodies = [(form % json.dumps(record)).encode() for record in records]
    expected = [codec.decode(body) for body in bodies]
    assert None not in expected
    twice = [(form % (json.dumps(record)[:-1] + ', "a": 5}')).encode() for record in records]
    assert [codec.decode(body) for body in twice] == [None, None]
    parts = codec.decode_several([*bodies, *twice, form.replace("%s", "").encode(), bodies[0]])
    assert [None if part is None else (part.packed, part.tuples) for part in parts] == [
        *[(part.packed, part.tuples) for part in expected],
        *[None] * 3,
        (expected[0].packed, expected[0].tuples),
    ]


def test_parts_of_both_ways_make_one_batch(people):
    codec = Codec(make_predictor(people[1]))
    parts = [codec.decode_json(json.dumps(RECORDS[:1]).encode()), codec.accept_inputs(pd.DataFrame(RECORDS[1:]))]
    assert parts[0].tuples
    assert parts[1].features is not None
    general = codec.predictor.accept_inputs(RECORDS)
    pd.testing.assert_frame_equal(codec.combine_parts(parts), general, check_column_type=False)


def test_numbers_are_packed_and_a_batch_is_one_block(numbers):
    codec = Codec(make_predictor(numbers[1]))
    parts = [codec.decode_json(b'{"inputs": [[1, 2.5]]}'), codec.decode_json(b'[{"b": 4, "a": 3}, {"a": 5, "b": 6}]')]
    assert [part.rows for part in parts] == [1, 2]
    assert all(part.packed for part in parts)
    expected = pd.DataFrame({"a": [1.0, 3.0, 5.0], "b": [2.5, 4.0, 6.0]})
    pd.testing.assert_frame_equal(codec.combine_parts(parts), expected, check_column_type=False)


@pytest.mark.parametrize(
    "inputs",
    [
        [[3, 4.0], [5, 6]],
        [{"b": 4, "a": 3}, {"a": 5, "b": 6}],
        [(3, 4), (5, 6)],
        np.array([[3, 4], [5, 6]]),
        np.array([[3, 4], [5, 6]], dtype="float32"),
        np.array([[3, 5], [4, 6]], dtype="float64").T,
        pd.DataFrame({"b": [4, 6], "a": [3.0, 5.0]}),
    ],
    ids=["rows", "records", "tuples", "integers", "small floats", "by column", "table"],
)
def test_whatever_holds_numbers_alone_is_packed(numbers, inputs):
    codec = Codec(make_predictor(numbers[1]))
    parts = [codec.accept_inputs(inputs), codec.decode_json(b"[[7, 8]]")]
    assert all(part.packed for part in parts)
    expected = pd.DataFrame({"a": [3.0, 5.0, 7.0], "b": [4.0, 6.0, 8.0]})
    pd.testing.assert_frame_equal(codec.combine_parts(parts), expected, check_column_type=False)


@pytest.mark.parametrize(
    "inputs",
    [
        [[1, True]],
        [[1, "2"]],
        [[1, 2, 3]],
        [{"a": 1, "b": 2, "c": 3}],
        np.array([[1, np.nan]]),
        np.array([[1, np.inf]]),
        np.array([[True, False]]),
        np.zeros((1, 3)),
        np.zeros((0, 2)),
        pd.DataFrame({"a": [1.0]}),
    ],
)
def test_what_does_not_fit_is_refused_by_every_way(numbers, inputs):
    with pytest.raises(InputError):
        Codec(make_predictor(numbers[1])).accept_inputs(inputs)


def test_features_may_be_written_to(numbers):
    codec = Codec(make_predictor(numbers[1]))
    table = codec.combine_parts([codec.decode_json(b"[[1, 2]]")])
    table.loc[0, "a"] = 7.0
    assert table["a"].tolist() == [7.0]


def test_encoding():
    assert encode_predictions([1, float("nan")], b"}") == b'{"predictions":[1,null]}'
    assert json.loads(encode_json({1: pd.Timestamp("2026-01-31"), "x": math.inf})) == {
        "1": "2026-01-31T00:00:00",
        "x": None,
    }
    assert json.loads(encode_json([2**70])) == [2**70]


@pytest.mark.parametrize("name", ['height 5"', "two\nlines", "back\\slash", "tab\t", ""])
def test_a_column_may_have_any_name(name):
    app = App("named", target="y")
    app.data_reader(lambda: pd.DataFrame({name: [1.0, 2.0] * 10, "y": [0, 1] * 10}))
    app.model(lambda: "model", trained=True)
    app.evaluator(lambda model, features, target: 1.0)
    app.predictor(lambda model, features: features[name].tolist())
    trained = app.train()
    codec = Codec(make_predictor(trained))
    for inputs in ([{name: 1.5}], [[1.5]], {name: [1.5]}):
        part = codec.decode_json(json.dumps({"inputs": inputs}).encode())
        assert codec.combine_parts([part]).iloc[0, 0] == 1.5
    assert app.predict([{name: 1.5}]) == [1.5]


def test_a_missing_number_of_a_tensor_is_null():
    budget = Budget(Serve(), 30)
    assert math.isnan(make_tensor_from_values("x", "FP32", [2], [1.5, None], budget).array[1])
    assert math.isnan(decode_json_tensor("x", "FP64", [2], b"[1, null]", budget).array[1])
    with pytest.raises(HttpError, match="a value is not of INT64"):
        make_tensor_from_values("x", "INT64", [2], [1, None], budget)
    with pytest.raises(HttpError, match="contains lists: send them to /predict"):
        make_tensor_from_values("x", "BYTES", [2], [["a"], ["b"]], budget)
