"""Converts inputs to an array of the schema's dtype and shape, and finds the columns of an array made from a table."""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlapp.errors import InputError, Problem
from mlapp.schema.column_check import check_column_names
from mlapp.schema.fields import Schema

if TYPE_CHECKING:
    import numpy as np

ROWS = 100
"""Maximum rows whose values are compared."""
MAX_COLUMNS = 5_000
"""Maximum columns of a table that are compared."""


def find_array_columns(features: Any, table: Any) -> list[str]:
    """The table column that each array column comes from, found by the values of some rows.

    Returns:
        One name per array column. Empty if a column is computed, or two table columns are equal.

    Args:
        features: an array of numbers, with the rows of the table.
    """
    import numpy as np

    names = list(getattr(table, "columns", ()))
    if getattr(features, "ndim", 0) != 2 or not hasattr(table, "iloc") or len(features) != len(table):
        return []
    if not all(isinstance(name, str) for name in names) or len(names) > MAX_COLUMNS:
        return []
    rows = np.linspace(0, len(table) - 1, min(len(table), ROWS)).astype(int)
    names_by_values: dict[bytes, list[str]] = {}
    for name in dict.fromkeys(names):
        column = table[name]
        if getattr(column.dtype, "kind", "O") in "biuf" and column.ndim == 1:
            values = column.iloc[rows]
            if features.dtype.kind == "f":
                values = values.to_numpy(dtype=features.dtype, na_value=np.nan)
            names_by_values.setdefault(np.asarray(values).astype(features.dtype).tobytes(), []).append(name)
    candidates = [
        names_by_values.get(np.ascontiguousarray(features[rows, position]).tobytes(), [])
        for position in range(features.shape[1])
    ]
    columns = [names[0] for names in candidates if len(names) == 1]
    return columns if len(columns) == len(candidates) == len(set(columns)) else []


def order_array_columns(inputs: Any, schema: Schema, *, ignore_unknown: bool = False) -> Any:
    """Inputs with training's column names as rows in training's order; other inputs unchanged.

    Args:
        inputs: records, columns or a table have names.
        ignore_unknown: leave out unknown columns instead of refusing them.

    Raises:
        InputError: a column is missing or unknown. A target and other columns of training's table are left out.
    """
    if not schema.columns:
        return inputs
    if hasattr(inputs, "columns") and hasattr(inputs, "iloc"):
        if not all(isinstance(name, str) for name in inputs.columns):
            return inputs
        check_column_names(list(inputs.columns), schema, ignore_unknown=ignore_unknown)
        return inputs[schema.columns].to_numpy()
    if isinstance(inputs, Mapping) and any(isinstance(value, (list, tuple)) for value in inputs.values()):
        check_column_names(list(map(str, inputs)), schema, ignore_unknown=ignore_unknown)
        return [list(row) for row in zip(*(inputs[name] for name in schema.columns), strict=False)]
    records = [inputs] if isinstance(inputs, Mapping) else inputs
    if not isinstance(records, list) or not records or not all(isinstance(record, Mapping) for record in records):
        return inputs
    for record in records:
        check_column_names(list(map(str, record)), schema, ignore_unknown=ignore_unknown)
    return [[record[name] for name in schema.columns] for record in records]


def to_typed_array(inputs: Any, shape: list[int], dtype: str | None) -> Any:
    import numpy as np

    target = np.dtype(dtype)
    try:
        original = np.asarray(inputs)
        if not all(_is_castable_to_array(kind, target.kind) for kind in _collect_schema_array_types(inputs, original)):
            raise ValueError("a value has another type")
        with np.errstate(invalid="ignore", over="ignore"):
            array = original.astype(target, copy=False)
        if (
            target.kind == "f"
            and original.dtype.kind in "fiu"
            and bool((np.isinf(array) & np.isfinite(original)).any())
        ):
            raise ValueError("a value is out of range")
        # NumPy truncates values that do not fit an integer type.
        if target.kind in "iu" and original.dtype != target and not (array == original).all():
            raise ValueError("a value is out of range or not a whole number")
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError([Problem(f"inputs is not an array of {dtype}: {error}")]) from None
    if list(array.shape[1:]) != shape or not array.ndim:
        problem = f"inputs has the shape {list(array.shape)}; the model takes a list of rows of shape {shape}"
        if list(array.shape) == shape:
            problem = f"inputs is a single row of shape {shape}, not a list of rows: put it into a list"
        raise InputError([Problem(problem)], "Send a list of such rows.")
    return array


def _collect_schema_array_types(inputs: Any, array: np.ndarray[Any, Any]) -> set[type]:
    """The types of the values before NumPy unifies them, which converts true and false to numbers."""
    if array.dtype.kind == "O":
        return set(map(type, array.ravel()))
    values = inputs
    while isinstance(values, list) and values and isinstance(values[0], list):
        values = list(itertools.chain.from_iterable(values))
    return set(map(type, values)) if isinstance(values, list) else {array.dtype.type}


def _is_castable_to_array(value_type: type, kind: str) -> bool:
    """Whether a dtype of this kind can hold values of a type. A missing value is NaN, which only floats hold."""
    if value_type is type(None):
        return kind == "f"
    if value_type.__name__ in ("bool", "bool_"):
        return kind == "b"
    is_array = hasattr(value_type, "__array__") and not issubclass(value_type, str)
    return kind != "b" and (issubclass(value_type, numbers.Real) or is_array)
