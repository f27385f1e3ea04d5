"""Values of a tensor that its datatype cannot hold are refused, in each form of a request."""

from __future__ import annotations

import json

import pytest

from mlapp.config import Serve
from mlapp.serving.protocols.tensor_decoding import decode_json_tensor, make_tensor_from_raw, make_tensor_from_values
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.problems import HttpError

MANY = 200
"""Values that are decoded as an array, not one by one."""


def budget() -> Budget:
    return Budget(Serve(), 30)


@pytest.mark.parametrize(("datatype", "value"), [("FP16", 70000), ("FP16", 1e6), ("FP32", 1e39)])
@pytest.mark.parametrize("count", [1, MANY])
def test_a_number_beyond_its_float_is_refused_and_not_infinite(datatype: str, value: float, count: int) -> None:
    values = [1.0] * (count - 1) + [value]
    with pytest.raises(HttpError, match=f"a value is out of range for {datatype}"):
        make_tensor_from_values("x", datatype, [count], values, budget())
    with pytest.raises(HttpError, match=f"a value is out of range for {datatype}"):
        decode_json_tensor("x", datatype, [count], json.dumps(values).encode(), budget())


def test_an_infinite_number_of_grpc_stays_infinite() -> None:
    assert make_tensor_from_values("x", "FP32", [1], [float("inf")], budget()).array.tolist() == [float("inf")]


def test_bytes_that_are_no_text_are_refused_and_not_replaced() -> None:
    with pytest.raises(HttpError, match="Tensor 'x': a string is not UTF-8"):
        make_tensor_from_values("x", "BYTES", [1], [b"caf\xe9"], budget())
    with pytest.raises(HttpError, match="Tensor 'x': a string is not UTF-8"):
        make_tensor_from_raw("x", "BYTES", [1], b"\x04\x00\x00\x00caf\xe9", budget())
