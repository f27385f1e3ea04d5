"""Checks that JSON does not change features, and advises on a column that it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlapp.errors import DataError
from mlapp.schema.json_values import is_same_json_value

if TYPE_CHECKING:
    import pandas as pd

ADVICE = {
    "interval": "Turn it into a category, .astype('category'), or a number: use the interval's mid.",
    "complex": "Give its real and imaginary part a column each.",
    "fixed_size_binary": "Turn it into bytes of any length: .astype('binary[pyarrow]').",
    "dictionary": "Turn it into a category: .astype('category').",
    "time": "Use Python's times without a time zone, or a number such as the seconds since midnight.",
    "datetime": "Turn it into a column of times: pd.to_datetime(column).",
    "Timestamp": "Turn it into a column of times: pd.to_datetime(column).",
    "timedelta": "Turn it into a column of durations: pd.to_timedelta(column).",
    "Timedelta": "Turn it into a column of durations: pd.to_timedelta(column).",
    "Period": "Turn it into a column of periods: pd.Series(pd.PeriodIndex(column)).",
    "date": "Turn it into a category of times: pd.to_datetime(column).astype('category').",
    "ndarray": "Turn the arrays into lists, [list(row) for row in column], or give each of their numbers a column.",
}
ADVICE_ON_CATEGORIES = (
    "Make its categories numbers, strings, times or intervals of numbers: .cat.rename_categories(str)."
)
DEFAULT_ADVICE = (
    "Turn it into numbers, strings, times or a category in the data_reader, or write an @app.feature_loader."
)


def require_unchanged_json_columns(original: pd.DataFrame, decoded: pd.DataFrame) -> None:
    """Check that each column has the same values and dtype as sent.

    Raises:
        DataError: one differs; names it, and says what to do.
    """
    for (name, before), (_, after) in zip(original.items(), decoded.items(), strict=True):
        if before.dtype is not after.dtype and _make_dtype_key(before) != _make_dtype_key(after):
            raise changed_column_error(
                str(name),
                before,
                f"its dtype {_format_json_changed_column(before)} becomes {_format_json_changed_column(after)}",
            )
        row = _find_first_changed_row(before, after)
        if row is not None:
            values = before.iloc[row], after.iloc[row]
            raise changed_column_error(
                str(name),
                before,
                f"{_format_json_changed_value(values[0])} becomes {_format_json_changed_value(values[1])}",
            )


def changed_column_error(name: str, column: pd.Series[Any], how: str) -> DataError:
    """The error for a column whose values JSON changes."""
    return DataError(
        f"Column '{name}' of the features cannot be sent as JSON: {how}.", advise_on_changed_column(column)
    )


def advise_on_changed_column(column: pd.Series[Any]) -> str:
    """Advice for a column with a dtype, or with values of a type, that JSON lacks."""
    import pandas as pd

    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        column = pd.Series(dtype.categories)
        dtype = column.dtype
        if not pd.api.types.is_object_dtype(dtype):
            return ADVICE_ON_CATEGORIES
    if pd.api.types.is_object_dtype(dtype):
        missing = {type(value).__name__ for value in column[column.isna()]}
        if len(missing) > 1:
            return "Mark its missing values in one way: column.where(column.notna(), None)."
        kinds = [type(value).__name__ for value in column.dropna()]
        return next((ADVICE[kind] for kind in kinds if kind in ADVICE), DEFAULT_ADVICE)
    return next((advice for kind, advice in ADVICE.items() if str(dtype).startswith(kind)), DEFAULT_ADVICE)


def _make_dtype_key(column: pd.Series[Any]) -> str:
    """A key that distinguishes dtypes. pandas' dtypes of texts have the same key."""
    import pandas as pd

    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return f"category {dtype.categories.dtype} {dtype.categories.tolist()} {dtype.ordered}"
    return str(dtype)


def _format_json_changed_column(column: pd.Series[Any]) -> str:
    import pandas as pd

    dtype = column.dtype
    if not isinstance(dtype, pd.CategoricalDtype):
        return str(dtype)
    if dtype.categories.dtype != object:
        return f"category of {dtype.categories.dtype}"
    return f"category of {', '.join(sorted({type(value).__name__ for value in dtype.categories}))}"


def _find_first_changed_row(before: pd.Series[Any], after: pd.Series[Any]) -> int | None:
    import numpy as np

    if isinstance(before.dtype, np.dtype) and before.dtype.kind in "biuf":
        original, decoded = before.to_numpy(), after.to_numpy()
        # JSON has no infinity, so clients send null.
        same = (
            (original == decoded) | (np.isnan(decoded) & ~np.isfinite(original))
            if original.dtype.kind == "f"
            else original == decoded
        )
        return None if same.all() else int(np.argmin(same))
    for row, (original, decoded) in enumerate(zip(before.astype(object), after.astype(object), strict=True)):
        if not is_same_json_value(original, decoded):
            return row
    return None


def _format_json_changed_value(value: Any) -> str:
    text = f"{value!r} ({type(value).__name__})"
    return text if len(text) <= 80 else f"{text[:77]}…"
