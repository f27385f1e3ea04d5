"""Converts predictions to the tensors of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlapp.normalization import MANY
from mlapp.schema import Schema
from mlapp.serving.decoding.json_body import encode_json
from mlapp.serving.inference.packed_rows import PackedRows
from mlapp.serving.protocols.tensors import DATATYPES, DTYPES, KINDS, OUTPUTS, Tensor, describe_tensors

if TYPE_CHECKING:
    import numpy as np


def convert_predictions_to_tensors(predictions: Sequence[Any], schema: Schema) -> list[Tensor]:
    """Predictions as tensors: one per field of records, otherwise one called `predictions`. Each has the datatype that
    `describe_tensors` reports, unless a value does not fit it.
    """
    datatypes = {tensor["name"]: tensor["datatype"] for tensor in describe_tensors(schema, OUTPUTS)}
    if predictions and all(isinstance(row, dict) for row in predictions):
        names = dict.fromkeys(str(name) for row in predictions for name in row)
        return [
            _make_output_tensor(name, [row.get(name) for row in predictions], datatypes.get(name)) for name in names
        ]
    # If training could not describe the predictions, they can be numbers all the same.
    is_described = schema.kind != "any" or schema.dtype in ("string", *KINDS)
    datatype = datatypes.get(OUTPUTS) if is_described else None
    array = predictions.to_array() if isinstance(predictions, PackedRows) and datatype != "BYTES" else None
    if array is not None:
        array = _cast_to_tensor_datatype(array, datatype)
        return [Tensor(OUTPUTS, array, DATATYPES[array.dtype.name])]
    return [_make_output_tensor(OUTPUTS, list(predictions), datatype)]


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
    """An array in the datatype of the model's metadata if it holds all values exactly; otherwise unchanged."""
    import numpy as np

    dtype = DTYPES.get(datatype or "")
    if dtype is None or array.dtype == dtype or (array.dtype.kind == "b") != (dtype == "bool"):
        return array
    with np.errstate(invalid="ignore", over="ignore"):
        cast = array.astype(dtype)
    return cast if np.array_equal(cast, array, equal_nan=array.dtype.kind == "f") else array
