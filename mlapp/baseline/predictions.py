"""Converts predictions to columns: scalars become `prediction`; records and lists have a column per entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlapp.baseline.baseline import Column
from mlapp.baseline.build import MOST_BINS, summarize_baseline_categories, summarize_baseline_column, to_category_texts
from mlapp.baseline.redaction import NO_RULES, is_redacted_column

NAME = "prediction"
MOST_ENTRIES = 32
"""Maximum entries of a list or record that become columns."""
_PLAIN = frozenset((str, bool, int, float))
MOST_LABELS = 50
"""Maximum distinct integers that are labels; with more, they are quantities."""


PLAIN = frozenset((str, bool, int, float, type(None)))


def split_baseline_predictions(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Predictions of any form as columns of plain values.

    Args:
        rows: one prediction per row, as in an answer.
    """
    if not rows:
        return {}
    if _PLAIN.issuperset(map(type, rows)):
        return {NAME: list(rows)}
    first: Any = rows[0]
    if isinstance(first, dict):
        names = [str(name) for name in list(first)[:MOST_ENTRIES]]
        return {
            f"{NAME}.{name}": _to_plain_baseline_predictions(
                [row.get(name) if isinstance(row, dict) else None for row in rows]
            )
            for name in names
        }
    if isinstance(first, (list, tuple)):
        width = len(first)
        if not 0 < width <= MOST_ENTRIES:
            return {}
        lists = [row if isinstance(row, (list, tuple)) and len(row) == width else (None,) * width for row in rows]
        return {f"{NAME}[{at}]": _to_plain_baseline_predictions([row[at] for row in lists]) for at in range(width)}
    if getattr(first, "ndim", 0):
        return split_baseline_predictions([row.tolist() for row in rows])
    return {NAME: _to_plain_baseline_predictions(list(rows))}


def summarize_predictions(rows: Sequence[Any], rules: Mapping[str, str] = NO_RULES) -> list[Column]:
    """The baseline of predictions.

    Args:
        rules: column, such as `prediction` → rule for its stored values.
    """
    return [
        _summarize_prediction_column(name, values, rules) for name, values in split_baseline_predictions(rows).items()
    ]


def _summarize_prediction_column(name: str, values: list[Any], rules: Mapping[str, str]) -> Column:
    import pandas as pd

    if is_redacted_column(rules, name):
        return Column(name=name, kind="text", rows=len(values), missing=sum(value is None for value in values))
    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {int, float} and (float in kinds or len(set(values)) > MOST_LABELS):
        return summarize_baseline_column(name, pd.Series(values, dtype="float64"), rules=rules)
    return summarize_baseline_categories(name, to_category_texts(values), MOST_BINS)


def _to_plain_baseline_predictions(values: list[Any]) -> list[Any]:
    return values if set(map(type, values)) <= PLAIN else [_to_plain_baseline_prediction(value) for value in values]


def _to_plain_baseline_prediction(value: Any) -> Any:
    """A scalar as a plain Python value; None for anything else, because it has no distribution."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    return value if isinstance(value, (str, bool, int, float)) else None
