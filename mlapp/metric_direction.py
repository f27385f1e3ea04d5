"""Whether a metric is better when it is higher or lower, by its name."""

from __future__ import annotations

LOWER = ("loss", "error", "mae", "mse", "rmse", "mape", "log_loss", "brier", "perplexity")
"""Suffixes of the names of metrics where lower is better."""
HIGHER = ("accuracy", "precision", "recall", "f1", "f1_macro", "f1_micro", "f1_weighted", "auc", "r2", "score")
"""Suffixes of the names of metrics where higher is certainly better."""


def is_better(metric: str, new: float | None, old: float | None) -> bool:
    """Whether a metric has improved. False if one version does not have it."""
    if new is None or old is None:
        return False
    return new < old if metric.casefold().endswith(LOWER) else new > old


def is_improvement(metric: str, change: float) -> bool:
    """Whether a change is certainly for the better; False for names that say nothing."""
    name = metric.casefold()
    return (change < 0 and name.endswith(LOWER)) or (change > 0 and name.endswith(HIGHER))
