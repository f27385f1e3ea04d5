"""Whether a higher value of a metric is better follows from its name, everywhere in the same way."""

from __future__ import annotations

import pytest

from mlapp.frameworks.metrics import is_better_metric, is_lower_better, is_metric_improvement


@pytest.mark.parametrize("metric", ["log_loss", "val_loss", "rmse", "test_rmse_log", "brier_score", "RMSE", "logloss"])
def test_errors_and_losses_are_better_when_they_are_lower(metric):
    assert is_lower_better(metric)
    assert is_better_metric(metric, 0.1, 0.2)
    assert is_metric_improvement(metric, -0.1)
    assert not is_metric_improvement(metric, 0.1)


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro", "roc_auc", "r2", "score"])
def test_scores_are_better_when_they_are_higher(metric):
    assert not is_lower_better(metric)
    assert is_better_metric(metric, 0.2, 0.1)
    assert is_metric_improvement(metric, 0.1)


def test_a_name_that_says_nothing_is_no_certain_improvement():
    assert not is_metric_improvement("revenue", 0.1)
    assert not is_better_metric("revenue", 0.2, None)
