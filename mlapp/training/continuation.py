"""Training that continues from a version."""

from __future__ import annotations

from typing import Any

from mlapp.errors import DataError, ModelError
from mlapp.frameworks import Framework
from mlapp.model import load_model_estimator
from mlapp.pipeline import Pipeline, Stage
from mlapp.pipeline.feature_format import wants_batched_features
from mlapp.schema import Schema
from mlapp.store import ModelVersion
from mlapp.training import seeds


def load_previous_model(pipeline: Pipeline, model: Any, framework: Framework, previous: ModelVersion) -> Any:
    """The model of the version that training continues from.

    Raises:
        ModelError: the version has another framework, is stored as ONNX, or the app's own trainer cannot continue it.
    """
    manifest = previous.manifest
    title = f"{manifest.app} version {manifest.version}"
    if manifest.framework != framework.name:
        raise ModelError(
            f"{title} is a {manifest.framework} model, but the model function builds a {framework.name} model.",
            "Choose a version of the same framework, or train from the start.",
        )
    if manifest.model_format == "onnx":
        raise ModelError(
            f"{title} is stored as ONNX, which cannot be trained further.", "Train from the start, without --from."
        )
    trainer = pipeline.stage("trainer")
    if trainer is not None and not framework.trains_from_weights and not _continues_from_parts(trainer, model):
        raise ModelError(
            f"{trainer.title} always starts from the beginning, and {framework.name} cannot start from the weights "
            f"of another model.",
            "Remove the trainer to train further, or train from the start, without --from.",
        )
    return load_model_estimator(
        pipeline, manifest.framework, manifest.model_format, previous.files, manifest.parameters
    )


def _continues_from_parts(trainer: Stage, model: Any) -> bool:
    """Whether the user's trainer learns incrementally, and so can continue from a version."""
    return wants_batched_features(trainer) and hasattr(model, "partial_fit") and hasattr(model, "get_params")


def require_same_features_to_continue(previous: ModelVersion, schema: Schema) -> None:
    """Check that the features have the version's columns in the same order.

    Raises:
        DataError: the columns differ; names one of them.
    """
    previous_names = [field.name for field in previous.manifest.schema.features.fields]
    names = [field.name for field in schema.fields]
    if previous_names == names:
        return
    extra_name = next((name for name in names if name not in previous_names), None)
    missing_name = next((name for name in previous_names if name not in names), None)
    difference = "the order is different"
    if extra_name is not None:
        difference = f"'{extra_name}' is only in the data"
    elif missing_name is not None:
        difference = f"'{missing_name}' is only in the version"
    raise DataError(
        f"The features differ from those of version {previous.version}: {difference}.",
        "Read the same columns, or train from the start.",
    )


def continue_training(
    trainer: Stage | None, framework: Framework, model: Any, previous_model: Any, features: Any, target: Any
) -> tuple[Stage | None, Any]:
    """The trainer and the model to fit; no trainer if the framework itself has continued the training.

    Raises:
        ModelError: the model cannot continue.
    """
    if trainer is not None and not trainer.is_framework_default and not framework.trains_from_weights:
        return trainer, previous_model.set_params(**model.get_params())
    with seeds.fix_seeds():
        continued_model = framework.proceed(model, previous_model, features, target)
    return (trainer if framework.trains_from_weights else None), continued_model
