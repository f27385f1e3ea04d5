"""Tensors of the Open Inference Protocol v2, and their conversion to features and from predictions.

https://github.com/kserve/open-inference-protocol. A table has a tensor for each column; rows of numbers are one tensor
`inputs` of shape [-1, columns]. A table accepts this too, with its columns in training order.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mlapp.normalization import MANY
from mlapp.schema import Field, Schema
from mlapp.serving.decoding.codec import Codec
from mlapp.serving.decoding.json_body import MOST_AT_ONCE, bound_json_values, encode_json
from mlapp.serving.decoding.json_chunks import PIECE, cut_json_array
from mlapp.serving.inference.packed_rows import PackedRows
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.problems import HttpError

if TYPE_CHECKING:
    import numpy as np

DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
_decode = {
    **{datatype: msgspec.json.Decoder(list[int]).decode for datatype in DTYPES},
    **{datatype: msgspec.json.Decoder(list[float]).decode for datatype in ("FP16", "FP32", "FP64")},
    "BOOL": msgspec.json.Decoder(list[bool]).decode,
}
_decode_any = msgspec.json.Decoder(list[Any]).decode
FLOATS = ("FP16", "FP32", "FP64")
NUMBERS = frozenset(DTYPES) - {"BOOL", "UINT64"}
"""Datatypes that simdjson reads."""
KINDS = {"integer": "INT64", "number": "FP64", "boolean": "BOOL"}
DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}
LONG_PIECE = 2 * PIECE
"""Bytes of a piece that could not be cut."""
COUNTED = 1000
"""Texts that are counted together."""
TEXT = 4
"""Cells that a text counts for, which is an object of its own."""
INPUTS = "inputs"
OUTPUTS = "predictions"


class Tensor(msgspec.Struct):
    """One tensor. A `BYTES` tensor is an object array of texts."""

    name: str
    array: Any
    datatype: str

    @property
    def shape(self) -> list[int]:
        return list(self.array.shape)

    def raw_bytes(self) -> bytes:
        """The little-endian, row-major bytes. The length of each text precedes it in four bytes."""
        if self.datatype != "BYTES":
            return bytes(self.array.astype(self.array.dtype.newbyteorder("<"), copy=False).tobytes())
        texts = [_to_tensor_bytes(item) for item in self.array.ravel()]
        return b"".join([struct.pack("<I", len(text)) + text for text in texts])


def make_tensor_from_values(name: str, datatype: str, shape: Sequence[int], values: Any, budget: Budget) -> Tensor:
    """A tensor from values, nested or flat.

    Raises:
        HttpError: 400, an unknown datatype; values of another type, or another number than in the shape.
    """
    _check_tensor_shape(name, shape)
    budget.take(len(values))
    if datatype == "BYTES" and len(shape) == 1 and isinstance(values, list) and list in map(type, values):
        raise HttpError(400, f"Tensor '{name:.60}' of shape {list(shape)} has lists in it: send them to /predict.")
    return Tensor(name, _reshape_tensor(name, _convert_tensor_values(name, datatype, values), shape), datatype)


def make_tensor_from_json(name: str, datatype: str, shape: Sequence[int], text: bytes, budget: Budget) -> Tensor:
    """A tensor from a large JSON array of values, nested or flat.

    Raises:
        HttpError: as for `make_tensor_from_values`. msgspec.DecodeError: not an array, or not readable in chunks.
    """
    import numpy as np

    from mlapp.schema.number_rows import read_json_numbers

    _check_tensor_shape(name, shape)
    if datatype != "BYTES" and b'"' not in text and text.count(b"[") > 1:
        text = b"[" + text.translate(bytes.maketrans(b"[]", b"  ")) + b"]"
    decode = _decode.get(datatype, _decode_any)
    arrays = []
    for piece in cut_json_array(text):
        if len(piece) > LONG_PIECE:
            bound_json_values(piece)
        budget.take(piece.count(b",") + 1)
        array = read_json_numbers(piece, DTYPES[datatype]) if datatype in NUMBERS else None
        if array is not None:
            arrays.append(array)
            continue
        try:
            arrays.append(np.array(decode(piece), dtype=DTYPES[datatype]))
        except (KeyError, msgspec.ValidationError, OverflowError):
            arrays.append(_convert_tensor_values(name, datatype, _decode_any(piece)))
    return Tensor(name, _reshape_tensor(name, np.concatenate(arrays), shape), datatype)


def _convert_tensor_values(name: str, datatype: str, values: Any) -> np.ndarray[Any, Any]:
    """A flat array of values of a datatype."""
    import numpy as np

    dtype = "object" if datatype == "BYTES" else DTYPES.get(datatype)
    if dtype is None:
        raise HttpError(400, f"Tensor '{name:.60}': datatype '{datatype:.20}' is not known.")
    flat = list(_flatten_tensor_values(values)) if isinstance(values, list) and list in map(type, values) else values
    array: np.ndarray[Any, Any]
    if datatype == "BYTES":
        array = np.empty(len(flat), dtype=object)
        array[:] = [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in flat]
    else:
        if isinstance(flat, list) and not all(_fits_tensor_datatype(kind, datatype) for kind in set(map(type, flat))):
            raise HttpError(400, f"Tensor '{name:.60}': a value is not of {datatype}.")
        try:
            array = np.array(flat, dtype=dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise HttpError(400, f"Tensor '{name:.60}': a value is not of {datatype}: {error}") from None
    return array


def make_tensor_from_raw(name: str, datatype: str, shape: Sequence[int], raw: bytes, budget: Budget) -> Tensor:
    """A tensor from its bytes in the form of `Tensor.raw_bytes`.

    Raises:
        HttpError: 400, an unknown datatype, or a number of bytes that does not fit the shape.
    """
    import numpy as np

    _check_tensor_shape(name, shape)
    if datatype == "BYTES":
        texts: list[str] = []
        at = 0
        while at + 4 <= len(raw):
            if len(texts) % COUNTED == 0:
                budget.take(TEXT * COUNTED if texts else 0)
            (length,) = struct.unpack_from("<I", raw, at)
            texts.append(raw[at + 4 : at + 4 + length].decode("utf-8", "replace"))
            at += 4 + length
        if at != len(raw):
            raise HttpError(400, f"Tensor '{name:.60}': its bytes end within a text.")
        array: np.ndarray[Any, Any] = np.empty(len(texts), dtype=object)
        array[:] = texts
        return Tensor(name, _reshape_tensor(name, array, shape), datatype)
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise HttpError(400, f"Tensor '{name:.60}': datatype '{datatype:.20}' is not known.")
    little = np.dtype(dtype).newbyteorder("<")
    if len(raw) % little.itemsize:
        raise HttpError(400, f"Tensor '{name:.60}' has {len(raw)} bytes, which is not a whole number of {datatype}s.")
    budget.take(len(raw) // little.itemsize)
    array = np.frombuffer(raw, dtype=little)
    return Tensor(name, _reshape_tensor(name, array, shape), datatype)


def convert_tensors_to_inputs(tensors: Sequence[Tensor], codec: Codec) -> Any:
    """The inputs for the codec: a table if the model has columns, otherwise an array or a list.

    Raises:
        HttpError: 400, no tensors, or tensors of different lengths. The codec checks the schema later.
    """
    if not tensors:
        raise HttpError(400, "There are no inputs.")
    schema = codec.predictor.schema.features
    own = codec.has_loader
    one = tensors[0].array
    if len(tensors) == 1 and (schema.kind != "table" or tensors[0].name not in schema.names):
        if tensors[0].datatype != "BYTES" and not own:
            return one
        if own and one.size > MOST_AT_ONCE:
            raise HttpError(
                413, f"The tensor has more than {MOST_AT_ONCE} values, which a feature_loader takes as a list."
            )
        return one.tolist()
    if schema.kind != "table" and not own:
        raise HttpError(400, f"The model takes one tensor, '{INPUTS}', but got {len(tensors)}.")
    columns = {tensor.name: _make_tensor_column(tensor) for tensor in tensors}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1 or len(columns) < len(tensors):
        raise HttpError(400, "The tensors have different lengths, or two have the same name.")
    import pandas as pd

    return pd.DataFrame(columns)


def convert_predictions_to_tensors(predictions: Sequence[Any], schema: Schema) -> list[Tensor]:
    """Predictions as tensors: one per field of records, otherwise one called `predictions`. Each has the datatype that
    `describe_tensors` reports, unless a value does not fit it.
    """
    wanted = {tensor["name"]: tensor["datatype"] for tensor in describe_tensors(schema, OUTPUTS)}
    if predictions and all(isinstance(row, dict) for row in predictions):
        names = dict.fromkeys(str(name) for row in predictions for name in row)
        return [_make_output_tensor(name, [row.get(name) for row in predictions], wanted.get(name)) for name in names]
    # A list that training could not describe can hold numbers.
    is_described = schema.kind != "any" or schema.dtype in ("string", *KINDS)
    datatype = wanted.get(OUTPUTS) if is_described else None
    array = predictions.to_array() if isinstance(predictions, PackedRows) and datatype != "BYTES" else None
    if array is not None:
        array = _cast_to_tensor_datatype(array, datatype)
        return [Tensor(OUTPUTS, array, DATATYPES[array.dtype.name])]
    return [_make_output_tensor(OUTPUTS, list(predictions), datatype)]


def describe_tensors(schema: Schema, name: str) -> list[dict[str, Any]]:
    """Metadata of the tensors of features or predictions."""
    if schema.kind == "table":
        return [
            {"name": field.name, "datatype": _find_tensor_datatype(field), "shape": [-1]} for field in schema.fields
        ]
    if schema.kind == "array":
        return [{"name": name, "datatype": DATATYPES.get(schema.dtype or "", "FP64"), "shape": [-1, *schema.shape]}]
    return [{"name": name, "datatype": KINDS.get(schema.dtype or "", "BYTES"), "shape": [-1]}]


def _find_tensor_datatype(field: Field) -> str:
    """The datatype of a column. The protocol has no missing values, so whole numbers with missing values are floats."""
    if field.type == "category":
        kinds = set(map(type, field.categories or ()))
        return {int: "INT64", float: "FP64", bool: "BOOL"}.get(kinds.pop(), "BYTES") if len(kinds) == 1 else "BYTES"
    if field.type not in ("integer", "number", "boolean"):
        return "BYTES"
    if field.type == "boolean":
        return "BYTES" if field.nullable else "BOOL"
    known = DATATYPES.get(re.split(r"[\[(]", field.dtype.lower())[0])
    if field.type == "integer":
        return "FP64" if field.nullable else known or "INT64"
    return known if known in FLOATS else {"float": "FP32", "halffloat": "FP16"}.get(field.dtype.split("[")[0], "FP64")


def _make_output_tensor(name: str, values: list[Any], datatype: str | None) -> Tensor:
    import numpy as np

    if datatype in DTYPES and datatype != "BOOL" and None in values:
        values = [float("nan") if value is None else value for value in values]
    array = None if datatype == "BYTES" else _to_number_tensor(values)
    if array is not None:
        array = _cast_to_tensor_datatype(array, datatype)
        return Tensor(name, array, DATATYPES[array.dtype.name])
    texts: np.ndarray[Any, Any] = np.empty(len(values), dtype=object)
    texts[:] = [value if isinstance(value, str) else encode_json(value).decode() for value in values]
    return Tensor(name, texts, "BYTES")


def _to_number_tensor(values: list[Any]) -> np.ndarray[Any, Any] | None:
    """The values as an array of numbers or booleans; None for other values."""
    import numpy as np

    try:
        arrays = [np.array(values[at : at + MANY]) for at in range(0, len(values), MANY)]
        alike = len({(array.dtype, array.shape[1:]) for array in arrays}) == 1
        array = np.concatenate(arrays) if alike and len(arrays) > 1 else np.array(values)
    except ValueError:  # rows of different lengths
        return None
    return array if array.dtype.kind in "biuf" else None


def _cast_to_tensor_datatype(array: np.ndarray[Any, Any], datatype: str | None) -> np.ndarray[Any, Any]:
    """Numbers in the metadata's datatype if it can hold all of them; otherwise unchanged."""
    import numpy as np

    dtype = DTYPES.get(datatype or "")
    if dtype is None or array.dtype == dtype or (array.dtype.kind == "b") != (dtype == "bool"):
        return array
    with np.errstate(invalid="ignore", over="ignore"):
        cast = array.astype(dtype)
    return cast if np.array_equal(cast, array, equal_nan=array.dtype.kind == "f") else array


def _make_tensor_column(tensor: Tensor) -> Any:
    array = tensor.array
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise HttpError(400, f"Tensor '{tensor.name:.60}' has the shape {tensor.shape}; a column has [rows].")
    return array


def _reshape_tensor(name: str, array: Any, shape: Sequence[int]) -> Any:
    try:
        return array.reshape(tuple(shape))
    except (ValueError, OverflowError):
        raise HttpError(400, f"Tensor '{name:.60}' has {array.size} values, not those of {list(shape)[:10]}.") from None


def _check_tensor_shape(name: str, shape: Sequence[int]) -> None:
    if not shape or any(size < 1 for size in shape):  # without values, it can claim any number of rows
        raise HttpError(400, f"Tensor '{name:.60}' has the shape {list(shape)[:10]}: there is nothing to predict.")


def _fits_tensor_datatype(kind: type, datatype: str) -> bool:
    """Whether JSON values of this Python type fit the datatype. A float can be null, which means NaN."""
    if datatype == "BOOL":
        return kind is bool
    if kind is type(None):
        return datatype in FLOATS
    return kind is int or (kind is float and datatype.startswith("FP"))


def _flatten_tensor_values(values: Any) -> Any:
    if isinstance(values, list):
        for item in values:
            yield from _flatten_tensor_values(item)
    else:
        yield values


def _to_tensor_bytes(item: Any) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()
