"""Whether a metric is better when it is higher or lower, by its name."""

from __future__ import annotations

LOWER = ("loss", "error", "mae", "mse", "rmse", "mape", "log_loss", "brier", "perplexity")
"""Suffixes of the names of metrics where lower is better."""


def is_better(metric: str, new: float | None, old: float | None) -> bool:
    """Whether a metric has improved. False if one version does not have it."""
    if new is None or old is None:
        return False
    return new < old if metric.casefold().endswith(LOWER) else new > old
