"""Rows of numbers that simdjson reads are what msgspec reads: the same values, the same errors."""

from __future__ import annotations

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlapp import App, frameworks
from mlapp.config import Serve
from mlapp.errors import MlappError
from mlapp.prediction import Predictor
from mlapp.schema import ModelSchema, Schema, infer_schema
from mlapp.schema import number_rows as rows_module
from mlapp.schema.number_rows import NumberRows
from mlapp.serving.decoding.codec import Codec
from mlapp.serving.protocols.tensor_decoding import decode_json_tensor
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.problems import HttpError

TYPES = {
    "float64": ["float64", "float64"],
    "float32": ["float32", "float32"],
    "int64": ["int64", "int64"],
    "int8": ["int8", "int8"],
    "uint64": ["uint64", "uint64"],
    "several": ["int64", "float64"],
    "small": ["uint8", "float32"],
}
NUMBERS = st.one_of(
    st.integers(-20, 300).map(str),
    st.integers(-(2**66), 2**66).map(str),
    st.sampled_from([2**53 + 1, -(2**53) - 1, 2**63, -(2**63) - 1, 2**64, 10**400]).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["-0", "-0.0", "1E+5", "1e-400", "1e400", "5e-324", "1.7976931348623159e308", "3.5e38", "7.0"]),
)
OTHERS = st.sampled_from(
    ["null", "true", '"1"', "NaN", "Infinity", "-Infinity", "[1]", "[]", "{}", "01", "1.", "+1", "", "1 2", '"é]["']
)
FRAMES = st.sampled_from(
    [
        "%s",
        '{"inputs": %s}',
        '{ "inputs" :\n%s }',
        '{"features": %s}',
        '{"inputs": %s, "inputs": [[1, 2]]}',
        '{"inputs": %s, "keys": {"a": "["}}',
        '{"inputs": %s, "other": 1}',
        '{"in\\u0070uts": %s}',
        "\ufeff%s",
        "%s]",
        "[%s]",
        "[" * 2000 + "%s",
    ]
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    cells = draw(st.sampled_from([NUMBERS, st.one_of(NUMBERS, NUMBERS, NUMBERS, OTHERS)]))
    widths = draw(st.sampled_from([st.just(2), st.integers(0, 3)]))
    table = [
        "[" + ", ".join(draw(cells) for _ in range(draw(widths))) + "]" for _ in range(draw(st.sampled_from([0, 1, 3])))
    ]
    return (draw(FRAMES) % ("[" + ",".join(table * draw(st.sampled_from([1, 8]))) + "]")).encode()


def codec_of(dtypes: list[str]) -> Codec:
    table = pd.DataFrame({f"c{at}": np.zeros(2, dtype) for at, dtype in enumerate(dtypes)})
    schema = ModelSchema(features=infer_schema(table), predictions=Schema(kind="any"))
    return Codec(Predictor(App("numbers", target="y"), None, frameworks.get_framework("sklearn"), schema))


def outcome(codec: Codec, body: bytes) -> object:
    try:
        features = codec.combine_parts([codec.decode_json(body)])
    except (MlappError, HttpError) as error:
        return repr(error), getattr(error, "problems", None)
    return list_columns(features)


def list_columns(features: pd.DataFrame) -> object:
    return [(str(column.dtype), column.to_numpy().tobytes()) for _, column in features.items()]


@pytest.fixture(scope="module")
def codecs():
    """For each set of types, a codec with simdjson and one without."""
    with pytest.MonkeyPatch.context() as patch:
        fast = {name: codec_of(dtypes) for name, dtypes in TYPES.items()}
        patch.setattr(rows_module, "IS_AVAILABLE", False)
        return {name: (fast[name], codec_of(dtypes)) for name, dtypes in TYPES.items()}


@given(body=bodies())
@example(body=b"[[1], [2, 3, 4]]")
@example(body=b"[" + b",".join([b"[9007199254740993, 1]"] * 24) + b"]")
@settings(max_examples=150, deadline=None, database=None)
def test_any_body_means_the_same_with_and_without_simdjson(codecs, body):
    for name, (fast, slow) in codecs.items():
        expected = outcome(slow, body)
        assert outcome(fast, body) == expected, (name, body)
        for codec in (fast, slow):
            (part,) = codec.decode_several([body])
            assert part is None or list_columns(codec.combine_parts([part])) == expected, (name, body)


TENSORS = ("FP64", "FP32", "FP16", "INT64", "UINT8", "INT8", "UINT64", "BOOL")


@pytest.mark.filterwarnings("ignore:overflow encountered")
@given(cells=st.lists(st.one_of(NUMBERS, NUMBERS, NUMBERS, OTHERS), max_size=4))
@settings(max_examples=150, deadline=None, database=None)
def test_a_tensor_means_the_same_with_and_without_simdjson(cells):
    text = f"[{', '.join(cells)}]".encode()
    for datatype in TENSORS:
        found = []
        for is_available in (True, False):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(rows_module, "IS_AVAILABLE", is_available and rows_module.IS_AVAILABLE)
                try:
                    budget = Budget(Serve(), 60)
                    tensor = decode_json_tensor("t", datatype, [len(cells)], text, budget)
                    found.append((tensor.array.dtype, tensor.array.tobytes()))
                except (HttpError, msgspec.MsgspecError) as error:
                    found.append(repr(error))
        assert found[0] == found[1], (datatype, text)


def test_several_plain_bodies_are_read_by_simdjson():
    decode = NumberRows(["float64", "float64"]).make_row_decoder("inputs", b'{"inputs": [[')
    bodies = {
        b'{"inputs": [[1, 2.5]]}': [1, 2.5],
        b'{"inputs": [[1], 2]]}': None,
        b'{"inputs": [[1, 2], 3]}': None,
        b'{"inputs": [[1], [2]]}': None,
        b'{"inputs": [[1, [2]]]}': None,
        b'{"inputs": [[1, 2]], "keys": [[3]]}': None,
        b'{"inputs": [[1, {}, 2]]}': None,
        b'{"inputs": [[1, 2, 3]]}': None,
        b'{"inputs": [[]]}': None,
        b'{"inputs": [[1, x]]}': None,
        b'{"inputs":[[1, 2]]}': None,
        b'{"inputs": [[-0, 1e3]]}': [0, 1e3],
    }
    decoded_rows = [None if part is None else np.frombuffer(part.packed).tolist() for part in decode(list(bodies))]
    assert decoded_rows == list(bodies.values())


def test_plain_rows_are_read_by_simdjson():
    numbers = NumberRows(["float64", "float64"])
    named, bare = numbers.make_decoder("inputs", repr), numbers.make_decoder("", repr)
    part = named(b'{"inputs": [[1, 2.5], [-0, 1e3]]}')
    assert (part.rows, part.packed) == (2, np.array([1, 2.5, 0, 1e3]).tobytes())
    for one in (b"[[1, 2]]", b" [ [1, 2] ]"):
        part = bare(one)
        assert (part.rows, part.packed) == (1, np.array([1.0, 2.0]).tobytes())
    others = (
        b"[[1, 2], [3]]",
        b"[[1, [2]]]",
        b"[[[1, 2]]]",
        b"[ [[1, 2]]]",
        b"[[1, 2, 3]]",
        b"[1, 2]",
        b"[[]]",
        b"[]",
        b"[[1, x]]",
    )
    for other in others:
        assert bare(other) == repr(other), "left to the general decoder"
