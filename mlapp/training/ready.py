"""A model that is trained already, of an app that reads no data: it becomes a version as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from mlapp import prediction
from mlapp.frameworks import Framework
from mlapp.model import TrainedModel, model_format
from mlapp.pipeline import Pipeline
from mlapp.pipeline.parameters import declared_parameters, flatten_parameters
from mlapp.schema import ModelSchema, Schema, infer_predictions, infer_schema
from mlapp.schema.fields import Field
from mlapp.training.binding import build_and_bind, parameter_stages
from mlapp.training.raw_inputs import load_example, raw_inputs
from mlapp.training.sampling import sample_rows

UNKNOWN = Schema(kind="any")


def is_ready(pipeline: Pipeline) -> bool:
    """Whether the app has a trained model and reads no data."""
    model = pipeline.stage("model")
    return model is not None and bool(model.options.get("trained")) and pipeline.stage("data_reader") is None


def take_in(pipeline: Pipeline, parameters: Mapping[str, Any], tell: Callable[[str], None]) -> TrainedModel:
    """The model with what is known of its features: by the feature_loader's example, or by the model itself.

    It has no metrics: there are no data to measure it on.

    Raises:
        ModelError: its file cannot be read. UserCodeError: a function of the user's raised.
    """
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    tell("build")
    model, framework, bound = build_and_bind(pipeline, parameters)
    model_format(pipeline, framework)
    tell("describe")
    return TrainedModel(
        pipeline=pipeline,
        estimator=model,
        framework=framework,
        parameters=flatten_parameters(bound, declared_parameters(parameter_stages(pipeline, framework))),
        metrics={},
        schema=_describe_model(pipeline, framework, model),
        fingerprint="",
        rows=0,
        columns=0,
        started=started,
        duration=time.perf_counter() - clock,
    )


def _describe_model(pipeline: Pipeline, framework: Framework, model: Any) -> ModelSchema:
    loader = pipeline.stage("feature_loader")
    example = None if loader is None else loader.options.get("example")
    if loader is not None and example is not None:
        features = load_example(loader, example)
        predictions, _ = prediction.sample_predictions(pipeline, framework, model, sample_rows(features))
        inputs = raw_inputs(pipeline, UNKNOWN)
        return ModelSchema(features=infer_schema(features), predictions=infer_predictions(predictions), inputs=inputs)
    if loader is None and (features := _zeros(model)) is not None:
        try:
            predictions, _ = prediction.sample_predictions(pipeline, framework, model, features)
        except Exception:  # it takes texts, say: then nothing is known of its columns but their names
            return ModelSchema(features=_names_alone(features), predictions=UNKNOWN)
        return ModelSchema(features=_numbers(infer_schema(features)), predictions=infer_predictions(predictions))
    return ModelSchema(features=UNKNOWN, predictions=UNKNOWN)


def _zeros(model: Any) -> Any:
    """A row of zeros of as many features as a model of scikit-learn's kind says that it was fitted on."""
    import numpy as np
    import pandas as pd

    names, count = getattr(model, "feature_names_in_", None), getattr(model, "n_features_in_", None)
    if names is not None:
        return pd.DataFrame(np.zeros((1, len(names))), columns=[str(name) for name in names])
    return np.zeros((1, int(count))) if isinstance(count, (int, np.integer)) else None


def _numbers(schema: Schema) -> Schema:
    """The schema of such a row, without the range of its zeros."""
    if schema.kind != "table":
        return schema
    fields = [Field(name=field.name, type="number", dtype="float64", example=0.0) for field in schema.fields]
    return Schema(kind="table", fields=fields)


def _names_alone(features: Any) -> Schema:
    if not hasattr(features, "columns"):
        return UNKNOWN
    return Schema(kind="table", fields=[Field(name=name, type="any", nullable=True) for name in features.columns])
