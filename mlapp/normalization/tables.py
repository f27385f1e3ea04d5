"""Converts normalized predictions to a DataFrame, for files and databases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mlapp.normalization.json_rows import normalize_to_rows

if TYPE_CHECKING:
    import pandas as pd

PREDICTION = "prediction"
"""The column of predictions that are one value each."""


def normalize_to_table(predictions: Any, title: str) -> pd.DataFrame:
    """Normalized predictions as a DataFrame: with their columns, the keys of records, or one column `prediction`.

    Raises:
        DataError: as for `normalize_to_rows`.
    """
    import pandas as pd

    if hasattr(predictions, "columns"):
        table = predictions.reset_index(drop=True)
        return pd.DataFrame({name: _normalize_column(table[name], title) for name in table.columns}, index=table.index)
    if getattr(predictions, "ndim", 0) == 1:
        return pd.DataFrame({PREDICTION: _normalize_column(pd.Series(predictions).reset_index(drop=True), title)})
    rows = normalize_to_rows(predictions, title)
    if rows and all(type(row) is dict for row in rows):
        table = pd.DataFrame(rows)
        return pd.DataFrame({name: _unify_column_types(table[name]) for name in table.columns})
    return pd.DataFrame({PREDICTION: _unify_column_types(pd.Series(rows, dtype=None if rows else object))})


def _normalize_column(column: pd.Series[Any], title: str) -> Any:
    if column.dtype.kind in "biufmM":
        return column
    import pandas as pd

    return _unify_column_types(pd.Series(normalize_to_rows(column, title), index=column.index))


def _unify_column_types(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column with values of one type, as files require: values of several types become texts of JSON."""
    if column.dtype != object or len({type(value) for value in column.dropna()}) < 2:
        return column
    return column.map(lambda value: value if isinstance(value, str) else msgspec.json.encode(value).decode())
