"""The usual metrics of classifiers and regressors, as scikit-learn defines them, without needing it."""

from __future__ import annotations

from typing import Any


def classification_metrics(target: Any, predicted: Any) -> dict[str, float]:
    """`accuracy`, and `f1` as the mean over the classes; for several targets a row, the share of rows that are
    right in all of them.
    """
    import numpy as np

    target, predicted = np.asarray(target), np.asarray(predicted)
    if target.ndim == 2 and target.shape[1] > 1:
        return {"accuracy": float(np.mean(np.all(target == predicted, axis=1)))}
    target, predicted = target.ravel(), predicted.ravel()
    scores = []
    for label in np.union1d(target, predicted):
        is_label, said = target == label, predicted == label
        scores.append(2 * np.sum(is_label & said) / (np.sum(is_label) + np.sum(said)))
    return {"accuracy": float(np.mean(target == predicted)), "f1": float(np.mean(scores))}


def regression_metrics(target: Any, predicted: Any) -> dict[str, float]:
    """`r2`, `mae` and `rmse`; the mean over several targets. `r2` of a constant target is 1 when exact, else 0."""
    import numpy as np

    target = np.asarray(target, dtype=float)
    target = target.reshape(len(target), -1)
    error = np.asarray(predicted, dtype=float).reshape(target.shape) - target
    squares, spread = np.sum(error**2, axis=0), np.sum((target - target.mean(axis=0)) ** 2, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(spread > 0, 1 - squares / spread, np.where(squares == 0, 1.0, 0.0))
    return {
        "r2": float(r2.mean()),
        "mae": float(np.mean(np.abs(error))),
        "rmse": float(np.mean(error**2)) ** 0.5,
    }
