"""Casts a column of accepted values to its dtype in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlapp.schema.category import cast_categories
from mlapp.schema.dtypes import is_missing_value, parse_pandas_dtype
from mlapp.schema.fields import Field
from mlapp.schema.text_forms import TEXT_FORMS, read_text_forms
from mlapp.schema.zones import is_zoned_dtype

if TYPE_CHECKING:
    import pandas as pd

NUMBERS: dict[str, Callable[[Any], Any]] = {"integer": int, "number": float, "boolean": bool}
MASKED = frozenset(
    (*(f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)), "Float32", "Float64", "boolean")
)


def cast_column(column: pd.Series[Any], field: Field) -> pd.Series[Any]:
    """The column in the field's dtype.

    Args:
        column: values that the field accepts: JSON values, or a typed column of a file.

    Raises:
        TypeError, ValueError, OverflowError: the dtype cannot hold them.
    """
    match field.type:
        case "category":
            return cast_categories(column, field)
        case "datetime":
            return _cast_times(column, field)
        case "string":
            return (
                _cast_to_objects(column, field, str)
                if field.dtype == "object"
                else column.astype(parse_pandas_dtype(field.dtype))
            )
        case "integer" | "number" | "boolean":
            return _cast_numbers(column, field)
    if field.type in TEXT_FORMS:
        return read_text_forms(column, field, find_missing_marker(field))
    return _cast_to_objects(column, field, None) if field.dtype == "object" else column.infer_objects()


def find_missing_marker(field: Field) -> Any:
    """The missing value of a column of objects in training."""
    import pandas as pd

    return {"nan": float("nan"), "NA": pd.NA, "NaT": pd.NaT}.get(field.missing or "")


def _cast_numbers(column: pd.Series[Any], field: Field) -> pd.Series[Any]:
    import numpy as np
    import pandas as pd

    make = NUMBERS[field.type]
    if field.dtype == "object":
        return _cast_to_objects(column, field, make)
    dtype = parse_pandas_dtype(field.dtype)
    if isinstance(dtype, np.dtype) and dtype.kind in "iub" and column.isna().any():
        return pd.Series(pd.array(column.tolist(), dtype="object"), index=column.index)
    if isinstance(dtype, pd.api.extensions.ExtensionDtype) and not isinstance(dtype, pd.SparseDtype):
        if column.dtype == object:
            values = [None if is_missing_value(value) else make(value) for value in column]
            if field.dtype in MASKED:
                return pd.Series(values, index=column.index, dtype=dtype)
            column = pd.Series(values, index=column.index, dtype=object)
        masked = {"integer": "UInt64" if "uint" in field.dtype.lower() else "Int64", "number": "Float64"}
        return column.astype(masked.get(field.type, "boolean")).astype(dtype)  # type: ignore[call-overload,no-any-return]
    return column.astype(dtype)


def _cast_to_objects(column: pd.Series[Any], field: Field, make: Callable[[Any], Any] | None) -> pd.Series[Any]:
    """A column of Python objects, with training's marker for missing values."""
    import pandas as pd

    marker = find_missing_marker(field)
    # One by one: pandas treats a list in a cell as several values.
    values: Any = [marker if is_missing_value(value) else value if make is None else make(value) for value in column]
    return pd.Series(values, index=column.index, dtype=object)


def _cast_times(column: pd.Series[Any], field: Field) -> pd.Series[Any]:
    import pandas as pd

    if field.dtype == "object":  # training had datetime.date objects
        marker = find_missing_marker(field)
        values = [marker if is_missing_value(value) else pd.Timestamp(value).date() for value in column]
        return pd.Series(values, index=column.index, dtype=object)
    # Via UTC: the values of one column can have different zones, or none.
    is_typed = pd.api.types.is_datetime64_any_dtype(column.dtype)
    zoned = is_zoned_dtype(field.dtype)
    # As an index, which is faster than a Series.
    parsed = pd.to_datetime(pd.Index(column), format=None if is_typed else "ISO8601", utc=True)
    if not zoned:
        parsed = parsed.tz_localize(None)
    if field.dtype.startswith("date32"):
        return pd.Series(parsed.date, index=column.index).astype(parse_pandas_dtype(field.dtype))
    dtype = parse_pandas_dtype(field.dtype)
    if isinstance(dtype, pd.ArrowDtype):
        return pd.Series(parsed, index=column.index).astype(dtype)
    return pd.Series(parsed.astype(dtype), index=column.index)
