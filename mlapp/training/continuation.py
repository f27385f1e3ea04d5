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
        ModelError: it has another framework, is stored as ONNX, or the app's own trainer decides how to fit.
    """
    manifest = previous.manifest
    which = f"{manifest.app} version {manifest.version}"
    if manifest.framework != framework.name:
        raise ModelError(
            f"{which} is a {manifest.framework} model, but the model function builds a {framework.name} model.",
            "Choose a version of the same framework, or train from the start.",
        )
    if manifest.model_format == "onnx":
        raise ModelError(
            f"{which} is stored as ONNX, which cannot be trained further.", "Train from the start, without --from."
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
    """Whether the user's trainer learns incrementally from parts, and so can continue from a version."""
    return wants_batched_features(trainer) and hasattr(model, "partial_fit") and hasattr(model, "get_params")


def require_same_features_to_continue(previous: ModelVersion, now: Schema) -> None:
    """Check that the columns and their order are those of the version.

    Raises:
        DataError: they differ; names one.
    """
    before = [field.name for field in previous.manifest.schema.features.fields]
    names = [field.name for field in now.fields]
    if before == names:
        return
    odd = next((name for name in (*names, *before) if (name in names) != (name in before)), None)
    what = "their order is another" if odd is None else f"'{odd}' is only in {'the data' if odd in names else 'it'}"
    raise DataError(
        f"The features differ from those of version {previous.version}: {what}.",
        "Read the same columns, or train from the start.",
    )


def continue_training(
    trainer: Stage | None, framework: Framework, model: Any, begun: Any, features: Any, target: Any
) -> tuple[Stage | None, Any]:
    """The model to fit and its trainer; no trainer if the framework itself continued.

    Raises:
        ModelError: the model cannot continue.
    """
    if trainer is not None and not trainer.is_default and not framework.trains_from_weights:
        return trainer, begun.set_params(**model.get_params())
    with seeds.fix_seeds():
        ahead = framework.proceed(model, begun, features, target)
    return (trainer if framework.trains_from_weights else None), ahead
