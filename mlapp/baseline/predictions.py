"""Predictions as columns: a label or a number is `prediction`; records and lists have a column for each entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlapp.baseline.baseline import Column
from mlapp.baseline.build import MOST_BINS, category_of, column_of, texts_of

NAME = "prediction"
MOST_ENTRIES = 32
"""Entries of a list or record that are columns."""
_PLAIN = frozenset((str, bool, int, float))
MOST_LABELS = 50
"""Whole numbers with more distinct values are quantities, not labels."""


def split_predictions(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Predictions of any form as columns of plain values.

    Args:
        rows: one prediction a row, as an answer holds them.
    """
    if not rows:
        return {}
    if _PLAIN.issuperset(map(type, rows)):
        return {NAME: list(rows)}
    first: Any = rows[0]
    if isinstance(first, dict):
        names = [str(name) for name in list(first)[:MOST_ENTRIES]]
        return {
            f"{NAME}.{name}": [_plain(row.get(name)) if isinstance(row, dict) else None for row in rows]
            for name in names
        }
    if isinstance(first, (list, tuple)):
        width = len(first)
        if not 0 < width <= MOST_ENTRIES:
            return {}
        listed = [row if isinstance(row, (list, tuple)) and len(row) == width else (None,) * width for row in rows]
        return {f"{NAME}[{at}]": [_plain(row[at]) for row in listed] for at in range(width)}
    if getattr(first, "ndim", 0):
        return split_predictions([row.tolist() for row in rows])
    return {NAME: [_plain(row) for row in rows]}


def prediction_columns(rows: Sequence[Any]) -> list[Column]:
    """The baseline of predictions."""
    return [_column(name, values) for name, values in split_predictions(rows).items()]


def _column(name: str, values: list[Any]) -> Column:
    import pandas as pd

    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {int, float} and (float in kinds or len(set(values)) > MOST_LABELS):
        return column_of(name, pd.Series(values, dtype="float64"))
    return category_of(name, texts_of(values), MOST_BINS)


def _plain(value: Any) -> Any:
    """A scalar as Python's own; anything else as None, for it has no distribution."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    return value if isinstance(value, (str, bool, int, float)) else None
