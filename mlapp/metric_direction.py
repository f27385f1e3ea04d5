"""Whether a metric is better when it is higher or lower, by its name."""

from __future__ import annotations

LOWER = ("loss", "error", "mae", "mse", "rmse", "mape", "brier", "perplexity")
"""Ends of words, in the names of metrics where lower is better."""
HIGHER = ("accuracy", "precision", "recall", "f1", "f1_macro", "f1_micro", "f1_weighted", "auc", "r2", "score")
"""Ends of the names of metrics where higher is certainly better."""


def is_lower_better(metric: str) -> bool:
    """Whether a word of the name says so: `log_loss`, `rmse_log`, `brier_score`."""
    return any(word.endswith(LOWER) for word in metric.casefold().split("_"))


def is_better_metric(metric: str, new: float | None, old: float | None) -> bool:
    """Whether a metric has improved. False if one version does not have it."""
    if new is None or old is None:
        return False
    return new < old if is_lower_better(metric) else new > old


def is_metric_improvement(metric: str, change: float) -> bool:
    """Whether a change is certainly for the better; False for names that say nothing."""
    if is_lower_better(metric):
        return change < 0
    return change > 0 and metric.casefold().endswith(HIGHER)
