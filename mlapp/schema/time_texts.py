"""Checks texts of dates and times, and whether a column's unit can hold times exactly."""

from __future__ import annotations

import re
from datetime import MAXYEAR
from typing import TYPE_CHECKING, Any

from mlapp.schema.durations import UNITS
from mlapp.schema.fields import Field

if TYPE_CHECKING:
    import pandas as pd

REST = r"(?:[T ].*)?"
TIME = re.compile(rf"(?!0000)[0-9]{{4}}(?:([-/. ])[0-9]{{2}}(?:\1[0-9]{{2}}{REST})?|[0-9]{{4}}{REST})?")
"""The beginning of ISO 8601, with pandas' separators. pandas also reads `now`, `12:30` and `2024Q3` as times.

Python has no year 0.
"""
UNIT = re.compile(r"\[(n?s|ms|us)\W")


def is_time_text(value: str) -> bool:
    """Whether a text can be a date or time of ISO 8601, unlike `now`, which depends on when it is read."""
    return TIME.fullmatch(value) is not None


def has_dates_only(field: Field) -> bool:
    """Whether a column of the type `datetime` holds dates without a time of day."""
    return field.dtype == "object" or field.dtype.startswith("date32")


def can_hold_time(field: Field, time: pd.Timestamp) -> bool:
    """Whether the column can hold the time without losing a part of it."""
    if has_dates_only(field):
        return time == time.normalize() and 1 <= time.year <= MAXYEAR
    return bool(_is_multiple_of_unit(field, time.microsecond, time.nanosecond))


def can_hold_time_series(field: Field, times: pd.Series[Any]) -> bool:
    """Whether the column can hold all times of a Series without losing a part of them."""
    if has_dates_only(field):
        return bool((times == times.dt.normalize()).all())
    return bool(_is_multiple_of_unit(field, times.dt.microsecond.astype("int64"), times.dt.nanosecond).all())


def _is_multiple_of_unit(field: Field, microseconds: Any, nanoseconds: Any) -> Any:
    """Whether the fraction of a second is a multiple of the column's unit; for a Series, of each time."""
    return (microseconds * 1000 + nanoseconds) % _find_unit(field) == 0


def _find_unit(field: Field) -> int:
    """The nanoseconds of the column's unit."""
    match = UNIT.search(field.dtype)
    return UNITS[match[1]] if match else 1
