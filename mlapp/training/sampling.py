"""Samples features and predictions, for the schema of predictions and the checks of a trained model."""

from __future__ import annotations

import copy
import time
from typing import Any

from mlapp import normalization
from mlapp.frameworks import Framework
from mlapp.pipeline import Pipeline
from mlapp.prediction import UNKNOWN, Predictor, select_predictor
from mlapp.predictor_results import SAMPLED_ITEMS, finish_predictor_result, normalize_predictor_result
from mlapp.schema import ModelSchema
from mlapp.schema.feature_containers import count_feature_rows, take_feature_rows

ROWS = 100
"""Rows of the sample."""
COLUMNS = 50
"""Maximum number of columns for which the sample includes a row with a missing value."""
CELLS = 10_000_000
"""Number of values that are checked at once."""


def sample_feature_rows(features: Any) -> Any:
    """Rows spread evenly over the features. For each column with missing values, one such row is included.

    Returns a copy, because a view would keep the whole table in memory. A table keeps its index, which a request lacks,
    so that the check finds code that depends on the index.
    """
    import numpy as np

    rows = count_feature_rows(features) or 0
    row_numbers = set(np.linspace(0, rows - 1, min(rows, ROWS)).astype(int).tolist())
    if not hasattr(features, "iloc"):
        return take_feature_rows(features, sorted(row_numbers))
    incomplete_rows: list[int] = []
    width = features.shape[1] if features.ndim > 1 else 0
    step = max(1, CELLS // max(rows, 1))
    for start in range(0, width, step):
        missing = features.iloc[:, start : start + step].isna().to_numpy(dtype=bool)
        incomplete_rows += missing[:, missing.any(axis=0)].argmax(axis=0).tolist() if rows else []
        if len(incomplete_rows) >= COLUMNS:
            break
    row_numbers.update(incomplete_rows[:COLUMNS])
    return features.iloc[sorted(row_numbers)].copy()


def sample_predictions(pipeline: Pipeline, framework: Framework, estimator: Any, features: Any) -> tuple[Any, float]:
    """Predict a few rows of training features.

    Returns:
        The predictions, as a DataFrame, an array of numbers or a list of JSON values, and the seconds they took.

    Raises:
        UserCodeError: the predictor or transformer raised. DataError: not one prediction per row, or a value that JSON
            cannot represent.
    """
    stage = select_predictor(pipeline, framework)
    predictor = Predictor(pipeline, estimator, framework, ModelSchema(features=UNKNOWN, predictions=UNKNOWN))
    started = time.perf_counter()
    transformed = predictor.transform_features(copy.copy(features))  # user code can modify its features
    predictions = normalize_predictor_result(
        finish_predictor_result(predictor.call_predictor(transformed), stage, max_items=SAMPLED_ITEMS),
        transformed,
        stage,
    )
    rows = normalization.normalize_to_rows(predictions, stage.title)
    has_types = hasattr(predictions, "columns") or getattr(getattr(predictions, "dtype", None), "kind", "O") in "biuf"
    return predictions if has_types else rows, time.perf_counter() - started
