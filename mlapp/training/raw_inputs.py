"""The example of raw inputs for an app with a feature_loader: declared, or derived from the features and tested."""

from __future__ import annotations

from typing import Any

import msgspec

from mlapp.errors import STAGE_ERRORS, DeclarationError, MlappError
from mlapp.pipeline import Pipeline, Stage
from mlapp.schema import Schema, infer_schema
from mlapp.schema.fields import RawInputs
from mlapp.schema.json_values import to_json_value


def make_raw_inputs(pipeline: Pipeline, features: Schema) -> RawInputs | None:
    """The declared example, or an example of the features if the feature_loader accepts it, otherwise None.

    Raises:
        DeclarationError: the feature_loader cannot read the declared example.
    """
    stage = pipeline.stage("feature_loader")
    if stage is None:
        return None
    options = pipeline.feature_loader_options
    declared_example, schema = options.example, options.schema
    if declared_example is not None:
        load_raw_example(stage, declared_example)
        return RawInputs(example=declared_example, schema=schema)
    example = to_json_value(features.example_inputs())
    try:
        inferred = infer_schema(stage(msgspec.json.decode(msgspec.json.encode(example))))
    except STAGE_ERRORS:  # it expects something else, such as the path of an image
        return None
    is_alike = (inferred.kind, inferred.names, inferred.shape) == (features.kind, features.names, features.shape)
    return RawInputs(example=example, schema=schema) if is_alike else None


def load_raw_example(stage: Stage, example: Any) -> Any:
    """The features that the feature_loader returns for a declared example.

    Raises:
        DeclarationError: the feature_loader cannot read it.
    """
    try:
        features = stage(example)
    except MlappError:
        raise
    except STAGE_ERRORS as error:
        raise DeclarationError(
            f"{stage.title} cannot read its own example: {type(error).__name__}: {error}",
            "Change example= of @app.feature_loader to valid `inputs` of a request.",
        ) from error
    if features is None:
        raise DeclarationError(f"{stage.title} returned None for its example.", "Return the features.")
    return features
