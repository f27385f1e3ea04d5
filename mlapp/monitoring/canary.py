"""Compares a canary's predictions with those of the live release, by the pods' Prometheus counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from mlapp.config import Drift
from mlapp.monitoring.statistics import compute_categories_p, compute_js_distance, compute_ks_p

SERIES = "mlapp_feature_rows_total"
Predictions = Mapping[tuple[str, str, str], float]
"""Prediction's column, upper end (`le`) and value → rows: a number has the end, a category the value."""


def explain_canary_predictions(live: Predictions, trial: Predictions, limit: float) -> str | None:
    """The reason why the canary's predictions differ too much; None if they do not, or if there are too few.

    Labels are compared by the Jensen-Shannon distance. Numbers are compared by the Kolmogorov-Smirnov distance; the
    two versions have different bin ends, so the distribution is assumed linear between two ends.

    Args:
        limit: the allowed distance.
    """
    for column in sorted({column for column, *_ in (*live, *trial)}):
        distance, p = _compare_canary_predictions(
            _select_canary_predictions(live, column), _select_canary_predictions(trial, column)
        )
        if distance > limit and p < Drift().q:
            return f"its {column} is distributed differently: distance {distance:.2f}, limit {limit:.2f}"
    return None


def _select_canary_predictions(predictions: Predictions, column: str) -> dict[tuple[str, str], float]:
    return {(le, value): rows for (name, le, value), rows in predictions.items() if name == column}


def _compare_canary_predictions(
    live: dict[tuple[str, str], float], trial: dict[tuple[str, str], float]
) -> tuple[float, float]:
    """The distance, and the probability of at least this distance by chance."""
    if any(le for le, _ in (*live, *trial)):
        before, now = _sum_monitored_canary_shares(live), _sum_monitored_canary_shares(trial)
        if before is None or now is None:
            return 0.0, 1.0
        ends = np.union1d(before[0], now[0])
        distance = float(np.abs(np.interp(ends, *before[:2]) - np.interp(ends, *now[:2])).max())
        return distance, compute_ks_p(distance, before[2], now[2])
    values = sorted({value for _, value in (*live, *trial)})
    old, new = (_read_canary_counts(rows, values) for rows in (live, trial))
    return compute_js_distance(np.array(old), np.array(new)), compute_categories_p(old, new)


def _sum_monitored_canary_shares(rows: Mapping[tuple[str, str], float]) -> tuple[list[float], list[float], int] | None:
    """Upper ends, the share of rows up to each, and all rows; None without rows or ends."""
    total = rows.get(("+Inf", ""), 0.0)
    ends = sorted((float(le), count) for (le, _), count in rows.items() if le not in ("", "+Inf"))
    if not total or not ends:
        return None
    return [end for end, _ in ends], [count / total for _, count in ends], round(total)


def _read_canary_counts(rows: Mapping[tuple[str, str], float], values: Iterable[str]) -> list[int]:
    return [round(rows.get(("", value), 0.0)) for value in values]
