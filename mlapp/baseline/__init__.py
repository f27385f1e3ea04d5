"""The baseline of a version: the distributions of the training data and of the model's predictions on them."""

from mlapp.baseline.baseline import FILE, Baseline, Calibration, Column, MetricError, read_baseline
from mlapp.baseline.build import (
    build_baseline_columns,
    describe_unwatched_features,
    draw_baseline_rows,
    find_target_json_type,
    list_baseline_classes,
)
from mlapp.baseline.predictions import summarize_predictions

__all__ = [
    "FILE",
    "Baseline",
    "Calibration",
    "Column",
    "MetricError",
    "build_baseline_columns",
    "describe_unwatched_features",
    "draw_baseline_rows",
    "find_target_json_type",
    "list_baseline_classes",
    "read_baseline",
    "summarize_predictions",
]
