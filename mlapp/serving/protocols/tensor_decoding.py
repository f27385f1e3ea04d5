"""Tensors of a request: made from nested or flat values, JSON or bytes, and converted to features."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mlapp.serving.decoding.codec import Codec
from mlapp.serving.decoding.json_body import MAX_VALUES_AT_ONCE, bound_json_values
from mlapp.serving.decoding.json_chunks import CHUNK_BYTES, cut_json_array
from mlapp.serving.protocols.tensors import DTYPES, FLOATS, INPUTS, Tensor
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.problems import HttpError

if TYPE_CHECKING:
    import numpy as np


_decode = {
    **{datatype: msgspec.json.Decoder(list[int]).decode for datatype in DTYPES},
    **{datatype: msgspec.json.Decoder(list[float]).decode for datatype in ("FP16", "FP32", "FP64")},
    "BOOL": msgspec.json.Decoder(list[bool]).decode,
}
_decode_any = msgspec.json.Decoder(list[Any]).decode
NUMBERS = frozenset(DTYPES) - {"BOOL", "UINT64"}
"""Datatypes that simdjson reads."""
LONG_PIECE = 2 * CHUNK_BYTES
"""Bytes of a chunk from which its values are counted before it is decoded."""
COUNTED = 1000
"""Number of texts after which the budget is charged."""
TEXT = 4
"""Cells that a text counts for: it is a Python object."""


def make_tensor_from_values(name: str, datatype: str, shape: Sequence[int], values: Any, budget: Budget) -> Tensor:
    """A tensor from values, nested or flat.

    Raises:
        HttpError: 400, an unknown datatype; values of another type, or another number than in the shape.
    """
    _check_tensor_shape(name, shape)
    budget.take(len(values))
    if datatype == "BYTES" and len(shape) == 1 and isinstance(values, list) and list in map(type, values):
        raise HttpError(400, f"Tensor '{name:.60}' of shape {list(shape)} contains lists: send them to /predict.")
    return Tensor(name, _reshape_tensor(name, _convert_tensor_values(name, datatype, values), shape), datatype)


def decode_json_tensor(name: str, datatype: str, shape: Sequence[int], text: bytes, budget: Budget) -> Tensor:
    """A tensor from a large JSON array of values, nested or flat.

    Raises:
        HttpError: as for `make_tensor_from_values`. msgspec.DecodeError: not an array, or not readable in chunks.
    """
    import numpy as np

    from mlapp.schema.number_rows import read_json_number_row

    _check_tensor_shape(name, shape)
    if datatype != "BYTES" and b'"' not in text and text.count(b"[") > 1:
        text = b"[" + text.translate(bytes.maketrans(b"[]", b"  ")) + b"]"
    decode = _decode.get(datatype, _decode_any)
    arrays = []
    for piece in cut_json_array(text):
        if len(piece) > LONG_PIECE:
            bound_json_values(piece)
        budget.take(piece.count(b",") + 1)
        array = read_json_number_row(piece, DTYPES[datatype]) if datatype in NUMBERS else None
        if array is not None:
            arrays.append(array)
            continue
        try:
            arrays.append(np.array(decode(piece), dtype=DTYPES[datatype]))
        except (KeyError, msgspec.ValidationError, OverflowError):
            arrays.append(_convert_tensor_values(name, datatype, _decode_any(piece)))
    array = np.concatenate(arrays)
    if array.dtype.kind == "f" and np.isinf(array).any():  # JSON has no infinity
        raise _overflown_tensor_error(name, datatype)
    return Tensor(name, _reshape_tensor(name, array, shape), datatype)


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
        array[:] = [_decode_tensor_text(name, item) if isinstance(item, bytes) else item for item in flat]
    else:
        if isinstance(flat, list) and not all(_fits_tensor_datatype(kind, datatype) for kind in set(map(type, flat))):
            raise HttpError(400, f"Tensor '{name:.60}': a value is not of {datatype}.")
        try:
            array = np.array(flat, dtype=dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise HttpError(400, f"Tensor '{name:.60}': a value is not of {datatype}: {error}") from None
        if datatype in FLOATS and np.isinf(array).sum() > np.isinf(np.array(flat, dtype="float64")).sum():
            raise _overflown_tensor_error(name, datatype)
    return array


def _overflown_tensor_error(name: str, datatype: str) -> HttpError:
    return HttpError(400, f"Tensor '{name:.60}': a value is out of range for {datatype}.")


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
            texts.append(_decode_tensor_text(name, raw[at + 4 : at + 4 + length]))
            at += 4 + length
        if at != len(raw):
            raise HttpError(400, f"Tensor '{name:.60}': its bytes end within a string.")
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


def _decode_tensor_text(name: str, text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise HttpError(400, f"Tensor '{name:.60}': a string is not UTF-8. Send bytes in base64.") from None


def convert_tensors_to_inputs(tensors: Sequence[Tensor], codec: Codec) -> Any:
    """The inputs for the codec: a table if the model has columns, otherwise an array or a list.

    Raises:
        HttpError: 400, no tensors, or tensors of different lengths. The codec checks the schema later.
    """
    if not tensors:
        raise HttpError(400, "There are no inputs.")
    schema = codec.predictor.schema.features
    has_loader = codec.has_loader
    array = tensors[0].array
    if len(tensors) == 1 and (schema.kind != "table" or tensors[0].name not in schema.names):
        if tensors[0].datatype != "BYTES" and not has_loader:
            return array
        if has_loader and array.size > MAX_VALUES_AT_ONCE:
            raise HttpError(
                413, f"The tensor has more than {MAX_VALUES_AT_ONCE} values, which a feature_loader takes as a list."
            )
        return array.tolist()
    if schema.kind != "table" and not has_loader:
        raise HttpError(400, f"The model takes one tensor, '{INPUTS}', but got {len(tensors)}.")
    columns = {tensor.name: _make_tensor_column(tensor) for tensor in tensors}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1 or len(columns) < len(tensors):
        raise HttpError(400, "The tensors have different lengths, or two have the same name.")
    import pandas as pd

    return pd.DataFrame(columns)


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
    if not shape or any(size < 1 for size in shape):  # a tensor without values can claim any number of rows
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
