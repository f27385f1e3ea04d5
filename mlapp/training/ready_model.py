"""Makes a version of a trained model of an app that reads no data."""

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
from mlapp.training.binding import build_and_bind, list_parameter_stages
from mlapp.training.json_round_trip import send_through_json
from mlapp.training.raw_inputs import load_raw_example, make_raw_inputs
from mlapp.training.sampling import sample_feature_rows, sample_predictions

UNKNOWN = Schema(kind="any")
ROWS = 20
"""Rows of numbers that a model is checked with."""


def has_ready_model(pipeline: Pipeline) -> bool:
    """Whether the app has a trained model and reads no data."""
    return pipeline.model_options.is_trained and pipeline.stage("data_reader") is None


def adopt_ready_model(
    pipeline: Pipeline, parameters: Mapping[str, Any], tell: Reporter, *, to_keep: bool = False
) -> TrainedModel:
    """The model with what is known about its features: from the feature_loader's example or from the model.

    It has no metrics, because there is no data. It is checked like a model that was trained here, with the
    example or with numbers.

    Args:
        to_keep: as for `mlapp.training.run`.

    Raises:
        ModelError: its file cannot be read; it cannot be saved and loaded, or cannot predict one row alone.
        UserCodeError: a function of the user's raised.
    """
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    tell("build")
    model, framework, bound = build_and_bind(pipeline, parameters)
    choose_model_format(pipeline, framework)
    tell("describe")
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
    tell("check")
    if sample is None:
        round_trip.require_loadable_model(trained, to_keep=to_keep)
        return trained
    sent = send_through_json(pipeline, framework, schema.features, sample)
    predictions, cost = sample_predictions(pipeline, framework, model, sent.features)
    return replace(
        trained,
        batching=round_trip.check_model_round_trip(trained, sent, predictions, cost, to_keep=to_keep, tell=tell),
    )


def _describe_ready_model(pipeline: Pipeline, framework: Framework, model: Any) -> tuple[ModelSchema, Any]:
    """The schema, and features to check the model with; None if nothing is known about them."""
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
                described = _make_ready_model_schema(infer_schema(sample))
                return ModelSchema(features=described, predictions=infer_prediction_schema(predictions)), sample
        return ModelSchema(features=_take_ready_model_names(features), predictions=UNKNOWN), None
    return ModelSchema(features=UNKNOWN, predictions=UNKNOWN), None


def _make_ready_model_rows(model: Any, rows: int) -> Any:
    """Rows of numbers, with as many columns as the model's `n_features_in_`."""
    import numpy as np
    import pandas as pd

    names, count = getattr(model, "feature_names_in_", None), getattr(model, "n_features_in_", None)
    width = len(names) if names is not None else int(count) if isinstance(count, (int, np.integer)) else 0
    if not width:
        return None
    numbers = np.random.default_rng(0).normal(size=(rows, width))
    return numbers if names is None else pd.DataFrame(numbers, columns=[str(name) for name in names])


def _make_ready_model_schema(schema: Schema) -> Schema:
    """The schema of such rows, without the range of their numbers."""
    if schema.kind != "table":
        return msgspec.structs.replace(schema, example=[0.0] * schema.shape[0])
    fields = [Field(name=field.name, type="number", dtype="float64", example=0.0) for field in schema.fields]
    return Schema(kind="table", fields=fields)


def _take_ready_model_names(features: Any) -> Schema:
    if not hasattr(features, "columns"):
        return UNKNOWN
    return Schema(kind="table", fields=[Field(name=name, type="any", nullable=True) for name in features.columns])
