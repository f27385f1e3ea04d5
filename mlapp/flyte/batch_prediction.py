"""Predictions on the reader's data, which a task writes to a file. Independent of Flyte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlapp import normalization, prediction, training
from mlapp.flyte.task_bodies import Bound
from mlapp.pipeline import Pipeline
from mlapp.pipeline.parameters import REQUIRED, list_parameters
from mlapp.schema.json_values import to_json_value
from mlapp.store import ModelVersion


def run_predict_step(pipeline: Pipeline, bound: Bound, version: ModelVersion, out: Path) -> None:
    """Write predictions on the reader's data as Parquet: the column `prediction`, or the predictor's own columns."""
    predictor = prediction.load_predictor(pipeline, version)
    values = _choose_batch_values(pipeline, bound)
    features = training.read_features(pipeline, values, trained_with=predictor.parameters)
    predictions = predictor.predict_features(features)
    normalization.normalize_to_table(predictions, predictor.stage.title).to_parquet(out)


def _choose_batch_values(pipeline: Pipeline, bound: Bound) -> dict[str, Any]:
    """The values that differ from the defaults, by full name, because Flyte also passes defaults."""
    defaults = {parameter.full_name: parameter.default for parameter in list_parameters(pipeline.stages.values())}
    all_values = {f"{stage}.{name}": value for stage, values in bound.items() for name, value in values.items()}
    return {
        name: value
        for name, value in all_values.items()
        if to_json_value(value) != to_json_value(defaults.get(name, REQUIRED))
    }
