"""Summarizes a table: each column's type, missing values and distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

BINS = 12
"""Number of bars in a distribution of numbers or times."""

MAX_TOP = 5
"""Number of most frequent texts or categories to count."""

_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Column:
    """Profile of one column.

    Attributes:
        missing: rows without a value.
        distinct: number of distinct values; None for values that cannot be compared, such as lists.
        minimum, maximum: for numbers, times and texts; None for others and for empty columns.
        counts: for numbers and times: row counts in `BINS` equal bins from minimum to maximum.
        top: for texts, categories and booleans: the most frequent values with their row counts.
    """

    name: str
    dtype: str
    missing: int
    distinct: int | None
    minimum: Any = None
    maximum: Any = None
    counts: tuple[int, ...] = ()
    top: tuple[tuple[Any, int], ...] = ()

    @property
    def distribution(self) -> str:
        """The distribution in a few characters: bars, or the most frequent values."""
        if self.counts:
            highest = max(self.counts)
            return "".join(_BARS[-(-count * (len(_BARS) - 1) // highest)] if count else " " for count in self.counts)
        return ", ".join(f"{value} ×{count:,}" for value, count in self.top)


def profile_table(table: pd.DataFrame) -> list[Column]:
    """Summarize each column of a table."""
    return [_profile_column(str(name), table.iloc[:, at]) for at, name in enumerate(table.columns)]


def _profile_column(name: str, column: pd.Series) -> Column:
    from pandas.api import types

    dtype = column.dtype
    missing = int(column.isna().sum())
    values = column.dropna()
    try:
        distinct: int | None = int(values.nunique())
    except TypeError:
        distinct = None
    if distinct is None or values.empty:
        return Column(name, str(dtype), missing, distinct)
    is_time = types.is_datetime64_any_dtype(dtype) or types.is_timedelta64_dtype(dtype)
    is_number = types.is_numeric_dtype(dtype) and not types.is_bool_dtype(dtype)
    if is_time or is_number:
        counts = _count_profile_bins(values, is_time)
        return Column(name, str(dtype), missing, distinct, values.min(), values.max(), counts)
    top = tuple((value, int(count)) for value, count in values.value_counts().head(MAX_TOP).items())
    if distinct > len(values) / 2 and distinct > MAX_TOP:  # such as names: no single value is informative
        top = ()
    is_text = all(isinstance(value, str) for value in values.head(1000)) and str(dtype) != "category"
    low, high = (values.min(), values.max()) if is_text else (None, None)
    return Column(name, str(dtype), missing, distinct, low, high, (), top)


def _count_profile_bins(values: pd.Series, is_time: bool) -> tuple[int, ...]:
    import numpy as np

    numbers = (values - values.min()).dt.total_seconds().to_numpy() if is_time else values.to_numpy(dtype="float64")
    finite = numbers[np.isfinite(numbers)]
    if not len(finite) or finite.min() == finite.max():
        return ()
    return tuple(int(count) for count in np.histogram(finite, BINS)[0])
