"""A trained model: the result of training, which a store saves as a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mlapp import frameworks
from mlapp.baseline import Baseline
from mlapp.errors import DeclarationError, ModelError, translate_user_errors
from mlapp.frameworks import Framework
from mlapp.frameworks.framework import SAVE_OTHERWISE
from mlapp.frameworks.python import PythonFramework
from mlapp.pipeline import Pipeline, Stage
from mlapp.pipeline.parameters import bind_stage_parameters, list_parameters
from mlapp.schema import ModelSchema

OPEN = ("builtins", "inspect", "typing", "sklearn.base", "torch.nn.modules.module.Module")
"""Types, and modules of types, that are return annotations in several frameworks and so identify none of them."""

NOT_A_MODEL = (dict, list, tuple, set, str, bytes, int, float, type)
"""Types that a model function can return for its trainer instead of a model: parameters, or the model's class."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """The result of one training run.

    Attributes:
        estimator: the fitted model, as the trainer returned it.
        parameters: every parameter of every stage, under its shortest clear name.
        metrics: split → metric → value.
        schema: the schema of features (before the transformer) and predictions.
        fingerprint: a fingerprint of the loader's data; `rows` and `columns` are its size.
        parent: the version that training continued from.
        batching: whether predictions are independent of the other rows, so that requests can share a call.
        started: the start of the training, in UTC; `duration` is in seconds.
        baseline: the reference for live data; stored beside the model's files.
    """

    pipeline: Pipeline
    estimator: Any
    framework: Framework
    parameters: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, float]]
    schema: ModelSchema
    fingerprint: str
    rows: int
    columns: int
    started: datetime
    duration: float
    parent: int | None = None
    batching: bool = True
    baseline: Baseline | None = None

    @property
    def format(self) -> str:
        """The format in which the model is saved: the user's `saver`, the chosen format, or the framework's own."""
        return choose_model_format(self.pipeline, self.framework)

    @property
    def kind_name(self) -> str:
        """The name of the model's class."""
        return type(self.estimator).__name__

    def save(self, folder: Path) -> None:
        """Write the model's files into an empty folder.

        Raises:
            ModelError: it cannot be saved.
            UserCodeError: the saver raised.
            OSError: the disk is full.
        """
        self._save_model_estimator(folder)
        if self.baseline is not None:
            self.baseline.write(folder)

    def _save_model_estimator(self, folder: Path) -> None:
        saver = self.pipeline.stage("saver")
        if saver is None:
            require_declared_model_format(self.pipeline, self.framework, self.format)
            self.framework.save(self.estimator, folder, self.format, self.pipeline.model_options.trusted)
            return
        with translate_user_errors(saver.title, passed_on=(OSError,)):
            saver(self.estimator, folder)
        if not any(folder.iterdir()):
            raise ModelError(f"{saver.title} wrote no file.", "Write into the folder passed as the second argument.")


def load_model_estimator(
    pipeline: Pipeline, framework: str, format: str, folder: Path, parameters: Mapping[str, Any] | None = None
) -> Any:
    """Read the model that `TrainedModel.save` wrote, with the app's `loader` if it has one.

    Args:
        parameters: of the training. A framework that stores only weights builds the model with them.

    Raises:
        ModelError: its files cannot be read, or hold types that the app does not declare trusted; or the app declares
            another framework or format than these, which come from a manifest.
        UserCodeError: the loader raised.
    """
    loader = pipeline.stage("loader")
    if loader is None:
        if format == "own":
            raise ModelError(
                f"The model was saved by an @app.saver; app '{pipeline.name}' has no loader.",
                "Write an @app.loader that reads it.",
            )
        adapter = frameworks.get_framework(framework)
        require_declared_model_format(pipeline, adapter, format)
        try:
            if adapter.weights_only:
                return adapter.restore(_build_unfitted_model(pipeline, parameters or {}), folder)
            return adapter.load(folder, format, pipeline.model_options.trusted)
        except FileNotFoundError as error:
            raise ModelError(
                f"{folder} has no file of a model that was saved as '{format}' by {adapter.name}: {error}",
                "Restore the version from a backup, or train again.",
            ) from error
    with translate_user_errors(loader.title):
        return loader(folder)


def require_savable_model(pipeline: Pipeline, framework: Framework, model: Any, must_be_savable: bool = True) -> None:
    """Check, before data is read, that a model built by the app can be saved and loaded after it is fitted.

    Args:
        must_be_savable: whether it becomes a version. Otherwise only models that its framework's own format cannot save
            are refused.

    Raises:
        ModelError: it can never be saved and loaded.
    """
    format = choose_model_format(pipeline, framework)
    if format == "own" or pipeline.model_options.is_trained:
        return
    if isinstance(model, NOT_A_MODEL):
        if pipeline.stage("trainer") is None:
            raise _make_no_model_error(pipeline.stages["model"], model)
        return  # parameters, which the trainer turns into a model
    if must_be_savable or format not in ("", "joblib"):
        framework.require_savable(model, format, pipeline.model_options.trusted)


def _make_no_model_error(stage: Stage, value: Any) -> DeclarationError:
    if isinstance(value, type):
        return DeclarationError(
            f"{stage.title} returned the class {value.__name__}, not a model.",
            f"Return an instance, {value.__name__}(…); or declare the class: app.model({value.__name__}).",
        )
    return DeclarationError(
        f"{stage.title} returned a {type(value).__name__}, not a model.",
        "Return a model that is built with these parameters, or write an @app.trainer that returns the fitted model.",
    )


def require_declared_model_format(pipeline: Pipeline, framework: Framework, format: str) -> None:
    """Check that the app declares this framework and format. A manifest is not trusted, because others can write it.

    A framework's default format, which loads no code, needs no declaration. An app declares its framework by its model:
    a class, a model file, or a function with a return annotation. An app without any of these accepts each framework.

    Raises:
        ModelError: it declares another framework or format; names the declaration that would allow this one.
    """
    declared = _find_declared_model_framework(pipeline)
    if declared is not None and declared != framework.name:
        raise ModelError(
            f"The model uses the framework '{framework.name}'; app '{pipeline.name}' declares one of '{declared}'.",
            f"If this is intended, annotate the model function's return type with a class of {framework.name}.",
        )
    default_format = framework.formats[0]
    declared_format = pipeline.model_options.format
    if not format:
        raise ModelError(
            f"App '{pipeline.name}' declares no format, and no framework can save its model safely.",
            SAVE_OTHERWISE,
        )
    if format not in {default_format, declared_format}:
        declaration = f"'{declared_format or default_format}'" if declared_format or default_format else "none"
        raise ModelError(
            f"The model is saved as '{format}'; app '{pipeline.name}' declares {declaration} for {framework.name}.",
            f"If you trust its author, declare it: @app.model(format='{format}').",
        )


def _find_declared_model_framework(pipeline: Pipeline) -> str | None:
    """The framework that the app declares for its models, or None.

    The model is the result of the trainer, if the app has one.
    """
    trainer, model = pipeline.stage("trainer"), pipeline.stage("model")
    if model is None:
        return None
    if trainer is None and (file := pipeline.model_options.file) is not None:
        return frameworks.find_framework_for_file(file).name
    stage = trainer or model
    kind = stage.function if isinstance(stage.function, type) else stage.signature.return_annotation
    if not isinstance(kind, type) or f"{kind.__module__}.{kind.__qualname__}" in OPEN or kind.__module__ in OPEN:
        return None
    framework = frameworks.find_framework(kind).name
    return None if framework == PythonFramework.name else framework


def choose_model_format(pipeline: Pipeline, framework: Framework) -> str:
    """`own` for an app with a saver; otherwise the format of `@app.model(format=…)`, or the framework's default.

    Raises:
        ModelError: the framework does not know that format.
    """
    if pipeline.stage("saver") is not None:
        return "own"
    declared_format = pipeline.model_options.format
    if declared_format is not None and declared_format not in framework.formats:
        formats = ", ".join(format for format in framework.formats if format)
        raise ModelError(
            f"{framework.name} models cannot be saved as '{declared_format}'.", f"Choose one of {formats}."
        )
    return declared_format or framework.formats[0]


def _build_unfitted_model(pipeline: Pipeline, parameters: Mapping[str, Any]) -> Any:
    """The model as the app's model function built it for the training that had these parameters."""
    pipeline.require_stages("model")
    stage = pipeline.stages["model"]
    model_parameters = list_parameters([stage])
    # A keyword of **kwargs is recorded under its full name; other names can belong to any stage.
    own_values = {
        name: value
        for name, value in parameters.items()
        if "." in name or name in {parameter.name for parameter in model_parameters}
    }
    values = bind_stage_parameters(stage, model_parameters, own_values)
    with translate_user_errors(stage.title):
        return stage(**values)
