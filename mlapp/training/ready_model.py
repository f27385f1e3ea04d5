"""Prepares a ready model, which an app without a data_reader provides, for a version."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import msgspec

from mlapp.frameworks import Framework
from mlapp.model import TrainedModel, choose_model_format
from mlapp.pipeline import Pipeline
from mlapp.pipeline.parameters import flatten_parameters, list_parameters
from mlapp.reporting import Reporter
from mlapp.schema import ModelSchema, Schema, infer_prediction_schema, infer_schema
from mlapp.schema.fields import Field
from mlapp.training import round_trip
from mlapp.training.binding import build_model_and_bind_parameters, list_parameter_stages
from mlapp.training.json_round_trip import send_through_json
from mlapp.training.raw_inputs import load_raw_example, make_raw_inputs
from mlapp.training.sampling import sample_feature_rows, sample_predictions

UNKNOWN = Schema(kind="any")
ROWS = 20
"""Rows of random numbers for the check of a model."""


def has_ready_model(pipeline: Pipeline) -> bool:
    """Whether the app has a trained model and reads no data."""
    return pipeline.model_options.is_trained and pipeline.stage("data_reader") is None


def adopt_ready_model(
    pipeline: Pipeline, parameters: Mapping[str, Any], progress: Reporter, *, must_be_savable: bool = False
) -> TrainedModel:
    """The model with a schema of its features, from the feature_loader's example or from the model itself.

    It has no metrics, because the app reads no data. It is checked like a trained model, with the example or with
    random numbers.

    Args:
        must_be_savable: as for `mlapp.training.run`.

    Raises:
        ModelError: its file cannot be read; or it cannot be saved and loaded, or cannot predict a single row.
        UserCodeError: one of the user's functions raised.
    """
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    progress("build")
    model, framework, bound = build_model_and_bind_parameters(pipeline, parameters)
    choose_model_format(pipeline, framework)
    progress("describe")
    schema, sample = _describe_ready_model(pipeline, framework, model)
    trained = TrainedModel(
        pipeline=pipeline,
        estimator=model,
        framework=framework,
        parameters=flatten_parameters(bound, list_parameters(list_parameter_stages(pipeline, framework))),
        metrics={},
        schema=schema,
        fingerprint="",
        rows=0,
        columns=0,
        started=started,
        duration=time.perf_counter() - clock,
    )
    progress("check")
    if sample is None:
        round_trip.require_loadable_model(trained, must_be_savable=must_be_savable)
        return trained
    json_sample = send_through_json(pipeline, framework, schema.features, sample)
    predictions, cost = sample_predictions(pipeline, framework, model, json_sample.features)
    return replace(
        trained,
        batching=round_trip.check_model_round_trip(
            trained, json_sample, predictions, cost, must_be_savable=must_be_savable, report=progress
        ),
    )


def _describe_ready_model(pipeline: Pipeline, framework: Framework, model: Any) -> tuple[ModelSchema, Any]:
    """The schema, and features for the check of the model; None if the features are unknown."""
    loader = pipeline.stage("feature_loader")
    example = pipeline.feature_loader_options.example
    if loader is not None and example is not None:
        features = sample_feature_rows(load_raw_example(loader, example))
        predictions, _ = sample_predictions(pipeline, framework, model, features)
        inputs = make_raw_inputs(pipeline, UNKNOWN)
        schema = ModelSchema(
            features=infer_schema(features), predictions=infer_prediction_schema(predictions), inputs=inputs
        )
        return schema, features
    if loader is None and (features := _make_ready_model_rows(model, ROWS)) is not None:
        for sample in (features, features[:1] * 0):
            with contextlib.suppress(Exception):  # a model of texts can raise anything
                predictions, _ = sample_predictions(pipeline, framework, model, sample)
                features_schema = _make_ready_model_schema(infer_schema(sample))
                return ModelSchema(features=features_schema, predictions=infer_prediction_schema(predictions)), sample
        return ModelSchema(features=_make_named_ready_model_schema(features), predictions=UNKNOWN), None
    return ModelSchema(features=UNKNOWN, predictions=UNKNOWN), None


def _make_ready_model_rows(model: Any, rows: int) -> Any:
    """Rows of random numbers with the model's `feature_names_in_` or `n_features_in_`; None if it has neither."""
    import numpy as np
    import pandas as pd

    names, count = getattr(model, "feature_names_in_", None), getattr(model, "n_features_in_", None)
    width = len(names) if names is not None else int(count) if isinstance(count, (int, np.integer)) else 0
    if not width:
        return None
    numbers = np.random.default_rng(0).normal(size=(rows, width))
    return numbers if names is None else pd.DataFrame(numbers, columns=[str(name) for name in names])


def _make_ready_model_schema(schema: Schema) -> Schema:
    """The schema of random rows, without the range of their numbers."""
    if schema.kind != "table":
        return msgspec.structs.replace(schema, example=[0.0] * schema.shape[0])
    fields = [Field(name=field.name, type="number", dtype="float64", example=0.0) for field in schema.fields]
    return Schema(kind="table", fields=fields)


def _make_named_ready_model_schema(features: Any) -> Schema:
    if not hasattr(features, "columns"):
        return UNKNOWN
    return Schema(kind="table", fields=[Field(name=name, type="any", nullable=True) for name in features.columns])
