"""Checks a table against a schema, and casts its columns to training's types."""

from __future__ import annotations

import datetime
import math
import numbers
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from mlapp.errors import InputError, Problem
from mlapp.schema.bulk_check import accepts_values_in_bulk
from mlapp.schema.cast import cast_column
from mlapp.schema.category import convert_categories_as_sent, is_category
from mlapp.schema.column_check import check_column_names
from mlapp.schema.dtypes import is_missing_value
from mlapp.schema.fields import Field, Schema, find_float_field_bound, find_integer_field_bounds
from mlapp.schema.text_forms import TEXT_FORMS, accepts_text_form
from mlapp.schema.time_texts import can_hold_time, has_dates_only, is_time_text
from mlapp.schema.zones import fits_zone, is_zoned_dtype

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 20_000
"""Values that are checked in one call: few enough for other threads to run in between."""
LARGEST_EXACT = {2: 2.0**11 - 1, 4: 2.0**24 - 1, 8: 2.0**53 - 1, 16: 2.0**53 - 1}
"""By the bytes of a float: the largest integer to which no other integer is rounded."""
FEW = 50
"""Values up to which checking them one by one is as fast as in bulk."""
WANTED = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "a string",
    "datetime": "a date or time, such as 2026-01-31T12:00:00",
    "category": "one of the categories",
    **{name: form.wanted for name, form in TEXT_FORMS.items()},
}


def conform_table(
    table: pd.DataFrame, schema: Schema, first_row: int = 0, *, ignore_unknown: bool = False
) -> pd.DataFrame:
    """The schema's columns of `table`, in training order and type.

    Args:
        first_row: the number of its first row, if it is a part of a larger table.
        ignore_unknown: drop unknown columns instead of refusing them.

    Raises:
        InputError: names each unknown, missing or mistyped column and its first bad row. A missing value,
            NaN or infinity is accepted only where the training data had missing values.
    """

    check_column_names([str(name) for name in table.columns], schema, ignore_unknown=ignore_unknown)
    if any(type(name) is not str for name in table.columns):
        table = table.set_axis([str(name) for name in table.columns], axis=1)
    if len(table.columns) > len(schema.fields):
        table = table[schema.names]
    floats = _conform_floats(table, schema)
    if floats is not None:
        return floats.set_axis(schema.labels, axis=1) if schema.has_integer_names else floats
    return conform_columns(table, schema, first_row, table.index)


def conform_columns(columns: Any, schema: Schema, first_row: int, index: Any) -> pd.DataFrame:
    """A table of the columns of all fields, in the schema's types.

    Args:
        columns: a table, or Series by name.
        first_row: as for `conform_table`.

    Raises:
        InputError: as for `conform_table`.
    """
    import pandas as pd

    typed: dict[str, Any] = {}
    problems = []
    for field in schema.fields:
        column = convert_categories_as_sent(columns[field.name], field)
        bad = _find_nonconforming_row(column, field)
        if bad is not None:
            problems.append(_describe_nonconforming_value(column.iloc[bad], field, first_row + bad))
            continue
        try:
            typed[field.name] = cast_column(column, field)
        except (TypeError, ValueError, OverflowError) as error:
            problems.append(Problem(f"column '{field.name}': {error}", field=field.name))
    if problems:
        raise InputError(problems)
    table = pd.DataFrame(typed, index=index)
    return table.set_axis(schema.labels, axis=1) if schema.has_integer_names else table


def _conform_floats(table: pd.DataFrame, schema: Schema) -> pd.DataFrame | None:
    """Cast a table of finite numbers in one block, for a schema of floats of one size; None for any other table.

    Column by column, 64 columns take 20 ms.
    """
    import numpy as np
    import pandas as pd

    kinds = {(field.type, field.dtype) for field in schema.fields}
    if kinds not in ({("number", "float64")}, {("number", "float32")}):
        return None
    if any(not isinstance(dtype, np.dtype) or dtype.kind not in "iuf" for dtype in table.dtypes):
        return None
    table = table[schema.names]
    block = table.to_numpy(schema.fields[0].dtype, copy=True)
    return pd.DataFrame(block, columns=table.columns, index=table.index) if np.isfinite(block).all() else None


def _find_nonconforming_row(column: pd.Series[Any], field: Field) -> int | None:
    """The row of the first value that the field does not accept."""
    if field.type == "any":
        return None
    fast = _find_nonconforming_number(column, field)
    if fast is not None:
        return fast if fast >= 0 else None
    for start in range(0, len(column), BLOCK):
        values = column.iloc[start : start + BLOCK].tolist()
        if len(values) > FEW and accepts_values_in_bulk(field, values):
            continue
        for row, value in enumerate(values, start):
            if not _is_conforming_value(field, value):
                return row
    return None


def _find_nonconforming_number(column: pd.Series[Any], field: Field) -> int | None:
    """For a column of NumPy numbers: the first bad row, or -1 if there is none. None if each value must be checked."""
    import numpy as np

    if not isinstance(column.dtype, np.dtype) or column.dtype.kind not in "iufb":
        return None
    kind = column.dtype.kind
    if field.type == "boolean":
        return -1 if kind == "b" else 0
    if field.type not in ("integer", "number"):
        return None
    if kind == "b":
        return 0
    if kind != "f":
        if field.type == "number":
            low, end = _find_float_integer_bounds(field.dtype)
        else:
            low, end = find_integer_field_bounds(field.dtype)
        good = (column.to_numpy() >= low) & (column.to_numpy() < end)
        return -1 if good.all() else int(np.argmin(good))
    values = column.to_numpy()
    good = np.isfinite(values)
    if field.nullable:
        good = good | ~good
    limit = find_float_field_bound(field.dtype)
    if field.type == "number" and limit < np.finfo(values.dtype).max:
        good = good & ~(np.isfinite(values) & (np.abs(values) > limit))
    if field.type == "integer":
        values = values.astype("float64", copy=False)  # half precision cannot hold the bounds
        low, end = find_integer_field_bounds(field.dtype)
        with np.errstate(invalid="ignore"):
            whole = (values == np.floor(values)) & (values >= low) & (values < end)
            # A larger float can be a rounded integer.
            whole &= np.abs(values) <= LARGEST_EXACT[column.dtype.itemsize]
            good = good & (whole | ~np.isfinite(values))
    return -1 if good.all() else int(np.argmin(good))


def _find_float_integer_bounds(dtype: str) -> tuple[int, int]:
    """As `find_integer_field_bounds`, for integers in a floating-point dtype, which can round them."""
    limit = int(find_float_field_bound(dtype))
    return -limit, limit + 1


def _is_conforming_value(field: Field, value: Any) -> bool:
    if is_missing_value(value):
        return field.nullable
    match field.type:
        case "boolean":
            return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
        case "integer" | "number":
            if isinstance(value, bool) or not isinstance(value, (numbers.Real, Decimal)):
                return False
            if not _is_finite(value):
                return field.nullable and not isinstance(value, int)
            if field.type == "number":
                return abs(float(value)) <= find_float_field_bound(field.dtype)
            return float(value).is_integer() and _is_conforming_integer(field.dtype, value)
        case "string":
            return isinstance(value, str)
        case "datetime":
            time = _parse_conforming_datetime(value)
            return time is not None and fits_zone(field, time) and can_hold_time(field, time)
        case "category":
            return is_category(field, value)
    return accepts_text_form(field, value) if field.type in TEXT_FORMS else True


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that exceeds every float
        return False


def _is_conforming_integer(dtype: str, value: Any) -> bool:
    """Whether a column of that integer type can hold the value."""
    low, end = find_integer_field_bounds(dtype)
    return bool(low <= value < end)


def _parse_conforming_datetime(value: Any) -> pd.Timestamp | None:
    import pandas as pd

    if not (is_time_text(value) if isinstance(value, str) else isinstance(value, datetime.date)):
        return None
    try:
        parsed = pd.Timestamp(value)
    except (ValueError, OverflowError):
        return None
    return None if pd.isna(parsed) else parsed


def _describe_time_problem(field: Field, time: pd.Timestamp) -> str:
    if fits_zone(field, time):
        lost = "a time of day" if has_dates_only(field) else "more decimals"
        return f"has {lost}, but the training data has none: send it without"
    if is_zoned_dtype(field.dtype):
        return "has no time zone, but the training data has one: send it with one, such as 2026-01-31T12:00:00+01:00"
    return "has a time zone, but the training data has none: send the local time without one"


def _is_inexact_integer(value: Any, field: Field) -> bool:
    """Whether a refused value is an integer that arrived as a float, and so can have been rounded by the client."""
    is_float = field.type == "integer" and isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
    return is_float and float(value).is_integer() and _is_conforming_integer(field.dtype, value)


def _is_too_large_for_column(value: Any, field: Field) -> bool:
    """Whether a refused value has the field's type but exceeds the range of its dtype."""
    if isinstance(value, bool):
        return False
    if field.type == "number":
        return isinstance(value, (numbers.Real, Decimal))
    is_whole = isinstance(value, numbers.Integral) or (isinstance(value, float) and value.is_integer())
    return field.type == "integer" and is_whole


def _describe_nonconforming_value(value: Any, field: Field, row: int) -> Problem:
    if is_missing_value(value):
        detail = f"column '{field.name}', row {row}: the value is missing; the training data had no missing values"
    elif field.type == "category":
        listing = ", ".join(str(category) for category in (field.categories or [])[:10])
        detail = f"column '{field.name}', row {row}: {_format_nonconforming_value(value)} is not one of {listing}"
    elif isinstance(value, float) and math.isinf(value):
        detail = f"column '{field.name}', row {row}: the value is infinite; the training data had no infinite values"
    elif field.type == "datetime" and (time := _parse_conforming_datetime(value)) is not None:
        problem = _describe_time_problem(field, time)
        detail = f"column '{field.name}', row {row}: {_format_nonconforming_value(value)} {problem}"
    elif _is_inexact_integer(value, field):
        detail = (
            f"column '{field.name}', row {row}: {_format_nonconforming_value(value)} is too large for a float to "
            "represent exactly: send it as an integer"
        )
    elif _is_too_large_for_column(value, field):
        detail = (
            f"column '{field.name}', row {row}: {_format_nonconforming_value(value)} is out of range for {field.dtype}"
        )
    else:
        detail = f"column '{field.name}', row {row}: {_format_nonconforming_value(value)} is not {WANTED[field.type]}"
    return Problem(detail, field=field.name, row=row)


def _format_nonconforming_value(value: Any) -> str:
    text = repr(value.item() if hasattr(value, "item") else value)
    return text if len(text) <= 60 else f"{text[:57]}…"
