"""The fast way through the codec gives the same features as the general one."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from mlapp.prediction import of_trained
from mlapp.serving.codec import Codec
from mlapp.serving.json_body import encode, encode_predictions, inputs_of, listed

RECORDS = [
    {"age": 3, "income": 1.5, "city": "Bern", "vip": True, "note": "x"},
    {"age": 4, "income": None, "city": "Rome", "vip": False, "note": "é \n"},
]


@pytest.mark.parametrize("form", ["records", "rows"])
@pytest.mark.parametrize("wrap", ["inputs", "features", None])
def test_fast_way_equals_the_general_way(people, form, wrap):
    codec = Codec(of_trained(people[1]))
    inputs = RECORDS if form == "records" else [list(record.values()) for record in RECORDS]
    body = json.dumps({wrap: inputs} if wrap else inputs).encode()
    part = codec.decode(body)
    assert part.tuples
    general = codec.accept(inputs_of(body))
    pd.testing.assert_frame_equal(codec.combine([part]), general.features, check_column_type=False)


def test_numbers_are_packed_and_a_batch_is_one_block(numbers):
    codec = Codec(of_trained(numbers[1]))
    parts = [codec.decode(b'{"inputs": [[1, 2.5]]}'), codec.decode(b'[{"b": 4, "a": 3}, {"a": 5, "b": 6}]')]
    assert [part.rows for part in parts] == [1, 2]
    assert all(part.packed for part in parts)
    expected = pd.DataFrame({"a": [1.0, 3.0, 5.0], "b": [2.5, 4.0, 6.0]})
    pd.testing.assert_frame_equal(codec.combine(parts), expected, check_column_type=False)
    mixed = [parts[0], codec.accept([[3, 4], [5, 6]])]
    pd.testing.assert_frame_equal(codec.combine(mixed), expected, check_column_type=False)


def test_features_may_be_written_to(numbers):
    codec = Codec(of_trained(numbers[1]))
    table = codec.combine([codec.decode(b"[[1, 2]]")])
    table.loc[0, "a"] = 7.0
    assert table["a"].tolist() == [7.0]


def test_encoding():
    assert encode_predictions([1, float("nan")], b"}") == b'{"predictions":[1,null]}'
    assert json.loads(encode({1: pd.Timestamp("2026-01-31"), "x": math.inf})) == {"1": "2026-01-31T00:00:00", "x": None}
    assert json.loads(encode([2**70])) == [2**70]
    assert listed(pd.DataFrame({"a": [1], "b": ["x"]})) == [{"a": 1, "b": "x"}]
    assert listed(pd.Series([1, 2])) == [1, 2]
