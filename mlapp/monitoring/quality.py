"""Decides whether a live metric is worse than in training, by more than allowed and significantly."""

from __future__ import annotations

import math

from mlapp.baseline import MetricError
from mlapp.monitoring.drift import Finding
from mlapp.monitoring.persistence import Persistence
from mlapp.monitoring.statistics import compute_normal_tail

FEWEST = 20
"""Minimum number of truths for an alarm."""
CERTAIN, LIKELY = 4.5, 3.0
"""Standard errors below the trained metric for an alarm: in one window, and in two of three windows."""


class QualityJudge:
    """Judges the metrics of windows, in order."""

    def __init__(self) -> None:
        self._watch: dict[tuple[str, str], Persistence] = {}

    def judge_metric(
        self,
        version: str,
        name: str,
        change: float,
        value: float,
        trained: float | None,
        trained_error: MetricError | None,
        rows: int,
    ) -> Finding | None:
        """The alarm for a window's metric; None if it is good enough.

        Args:
            change: the allowed change from the trained value; negative if higher is better.
            value: the live metric; `trained` is the trained one, and `trained_error` its standard error.
            rows: number of rows that the live metric was measured on.
        """
        if trained is None or rows < FEWEST:
            return None
        worse = trained - value if change < 0 else value - trained
        error = estimate_null_quality_error(trained, trained_error, rows)
        z = worse / error if error else math.inf
        is_worse = worse > abs(change)
        watch = self._watch.setdefault((version, name), Persistence("2/3"))
        persists = bool(watch.add({name} if is_worse and z >= LIKELY else set()))
        if not is_worse or not (z >= CERTAIN or persists):
            return None
        threshold = trained + change
        text = (
            f"{name} is {value:.3f} on {rows} rows; it was {trained:.3f} in training, and the limit is {threshold:.3f}."
        )
        return Finding("quality", name, value, threshold, compute_normal_tail(z), True, text)


def estimate_null_quality_error(trained: float, trained_error: MetricError | None, rows: int) -> float:
    """The standard error of the difference between a live and the trained metric, if both have the same true value.

    The bootstrap error of the trained metric is scaled to the live rows. For a share whose error is unknown, or
    0 because every row was right, it is the error of a binomial share with at least one wrong row.
    """
    trained_rows = trained_error.rows if trained_error is not None else 0
    error = trained_error.error if trained_error is not None else 0.0
    if error == 0 and 0 <= trained <= 1:
        total = (trained_rows or rows) + 2
        share = min(max(trained, 1 / total), 1 - 1 / total)
        error = math.sqrt(share * (1 - share) / (trained_rows or rows))
    if not trained_rows:
        return error
    return error * math.sqrt(1 + trained_rows / rows)


def estimate_live_quality_error(
    trained: float | None, trained_error: MetricError | None, value: float, rows: int
) -> float | None:
    """The standard error of a live metric, from that of the trained one."""
    if trained_error is not None and trained_error.error > 0:
        return trained_error.error * math.sqrt(trained_error.rows / rows)
    return math.sqrt(value * (1 - value) / rows) if 0 <= value <= 1 else None
