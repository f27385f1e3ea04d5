"""Computes common metrics by scikit-learn's definitions without importing it, and tells whether higher is better."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LOWER = ("loss", "error", "mae", "mse", "rmse", "mape", "brier", "perplexity")
"""Lower is better for a metric if a word of its name ends like this."""
HIGHER = ("accuracy", "precision", "recall", "f1", "f1_macro", "f1_micro", "f1_weighted", "auc", "r2", "score")
"""Higher is certainly better for a metric if its name ends like this."""


def compute_classification_metrics(target: Any, predicted: Any, scores: Any = None) -> dict[str, float]:
    """`accuracy` and `f1_macro`; for two classes with scores, also `roc_auc` and `average_precision` of the second.

    For several targets, `accuracy` is the share of rows with correct predictions of all targets. Each target also has
    its own `accuracy_<target>` and `f1_macro_<target>`.

    Args:
        target, predicted: of the shape rows, or rows × targets.
        scores: for two classes, each row's score of the second class: a probability or a decision function.
    """
    import numpy as np

    names, target, predicted = _list_metric_targets(target), np.asarray(target), np.asarray(predicted)
    if target.ndim == 2 and target.shape[1] > 1:
        values = {"accuracy": float(np.mean(np.all(target == predicted, axis=1)))}
        for at, name in enumerate(names):
            target_metrics = _compute_class_metrics(target[:, at], predicted[:, at])
            values |= {f"{metric}_{name}": value for metric, value in target_metrics.items()}
        return values
    target, predicted = target.ravel(), predicted.ravel()
    values = _compute_class_metrics(target, predicted)
    classes = np.unique(target)
    if scores is not None and len(classes) == 2:
        is_second = target == classes[1]
        values["roc_auc"] = compute_roc_auc(is_second, np.asarray(scores, dtype=float))
        values["average_precision"] = compute_average_precision(is_second, np.asarray(scores, dtype=float))
    return values


def compute_regression_metrics(target: Any, predicted: Any) -> dict[str, float]:
    """`r2`, `mae` and `rmse`. For several targets, over all targets, and for each, such as `r2_<target>`.

    `r2` of a constant target is 1 if the prediction is exact, otherwise 0.

    Args:
        target, predicted: of the shape rows, or rows × targets.
    """
    import numpy as np

    names, target = _list_metric_targets(target), np.asarray(target, dtype=float)
    target = target.reshape(len(target), -1)
    error = np.asarray(predicted, dtype=float).reshape(target.shape) - target
    squares, spread = np.sum(error**2, axis=0), np.sum((target - target.mean(axis=0)) ** 2, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(spread > 0, 1 - squares / spread, np.where(squares == 0, 1.0, 0.0))
    values = {
        "r2": float(r2.mean()),
        "mae": float(np.mean(np.abs(error))),
        "rmse": float(np.mean(error**2)) ** 0.5,
    }
    for at, name in enumerate(names):
        values |= {
            f"r2_{name}": float(r2[at]),
            f"mae_{name}": float(np.mean(np.abs(error[:, at]))),
            f"rmse_{name}": float(np.mean(error[:, at] ** 2)) ** 0.5,
        }
    return values


def compute_roc_auc(is_second: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> float:
    """The area under the ROC curve: how often a row of the second class has the higher score. Ties count half.

    Args:
        is_second: whether each row is of the second class.
        scores: each row's score of the second class.
    """
    import numpy as np

    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = int(is_second.sum())
    above = ranks[is_second].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(scores) - positives)))


def compute_average_precision(is_second: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> float:
    """The precision at each threshold, weighted by the increase of the recall, as in `average_precision_score`.

    Args:
        is_second: whether each row is of the second class.
        scores: each row's score of the second class.
    """
    import numpy as np

    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true_positives = np.cumsum(is_second[order])[last_of_tie]
    precision, recall = true_positives / (last_of_tie + 1), true_positives / true_positives[-1]
    return float(np.sum(np.diff(np.concatenate([[0.0], recall])) * precision))


def _compute_class_metrics(target: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any]) -> dict[str, float]:
    import numpy as np

    scores = []
    for label in np.union1d(target, predicted):
        is_label, is_predicted = target == label, predicted == label
        scores.append(2 * np.sum(is_label & is_predicted) / (np.sum(is_label) + np.sum(is_predicted)))
    return {"accuracy": float(np.mean(target == predicted)), "f1_macro": float(np.mean(scores))}


def _list_metric_targets(target: Any) -> list[str]:
    """The names of several targets; none for one target, or for targets without names."""
    names = list(map(str, getattr(target, "columns", ())))
    return names if len(names) > 1 else []


def is_lower_better(metric: str) -> bool:
    """Whether a word in the metric's name says that lower is better: `log_loss`, `rmse_log`, `brier_score`."""
    return any(word.endswith(LOWER) for word in metric.casefold().split("_"))


def is_better_metric(metric: str, new: float | None, old: float | None) -> bool:
    """Whether a metric has improved. False if one of the versions does not have it."""
    if new is None or old is None:
        return False
    return new < old if is_lower_better(metric) else new > old


def is_metric_improvement(metric: str, change: float) -> bool:
    """Whether a change is certainly an improvement; False if the metric's name does not tell."""
    if is_lower_better(metric):
        return change < 0
    return change > 0 and metric.casefold().endswith(HIGHER)
