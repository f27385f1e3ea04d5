"""Prediction: accept → transform → predict → normalize → on_predict. Python, commands and the server share it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from mlapp import frameworks, normalization
from mlapp.errors import STAGE_ERRORS, DataError, InputError, MlappError, Problem, UserCodeError
from mlapp.frameworks import Framework
from mlapp.frameworks.fitted_columns import explain_other_columns
from mlapp.frameworks.onnx import OnnxModel
from mlapp.model import TrainedModel, load_model_estimator
from mlapp.pipeline import Pipeline, Stage
from mlapp.pipeline.feature_format import convert_features_to_array, wants_array_features
from mlapp.pipeline.stage import ROLES
from mlapp.pipeline.stage_options import DefaultOptions
from mlapp.predictor_results import finish_predictor_result, normalize_predictor_result
from mlapp.schema import ModelSchema, Schema
from mlapp.schema.arrays import order_array_columns, to_typed_array
from mlapp.schema.feature_containers import build_container_features
from mlapp.schema.request_table import make_request_table
from mlapp.schema.row_codec import RowCodec
from mlapp.store import ModelVersion
from mlapp.store.manifest import list_manifest_parameters

log = logging.getLogger("mlapp")
CALL_ERRORS = (*STAGE_ERRORS, asyncio.CancelledError, GeneratorExit)
"""Errors of a user's function. No call in this module is awaited, so that a CancelledError comes from the function."""
UNKNOWN = Schema(kind="any")


@dataclass(frozen=True)
class Predictor:
    """A loaded model with the app's functions.

    Attributes:
        version: the number of the version; None for a model trained in this process and not stored.
        parameters: the parameters of the training, by name, or `stage.name` if two stages share it.
        ignores_extra: ignore unknown columns instead of refusing them (`serve.extra: ignore`).
        is_served: a server calls the app's functions. Then a KeyboardInterrupt is an error of the function, because
            Ctrl-C raises none: a handler of the signal stops the server.
    """

    pipeline: Pipeline
    estimator: Any
    framework: Framework
    schema: ModelSchema
    version: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    ignores_extra: bool = False
    is_served: bool = False

    @cached_property
    def stage(self) -> Stage:
        """The predictor: the user's, or the framework's."""
        return select_predictor(self.pipeline, self.framework)

    @cached_property
    def takes_array(self) -> bool:
        """Whether the first function that receives the features takes an array, so that no DataFrame is needed."""
        first = self.pipeline.stage("feature_transformer") or self.stage
        return wants_array_features(first) or self._is_tensor_predictor(first)

    def _is_tensor_predictor(self, stage: Stage) -> bool:
        """Whether the features go directly into the only tensor of an ONNX model, without a function of the app."""
        is_default = isinstance(stage.options, DefaultOptions) and not self.pipeline.callbacks
        return is_default and isinstance(self.estimator, OnnxModel) and len(self.estimator.inputs) == 1

    @property
    def _call_errors(self) -> tuple[type[BaseException], ...]:
        return (BaseException,) if self.is_served else CALL_ERRORS

    @cached_property
    def _wants_array(self) -> bool:
        return wants_array_features(self.stage)

    def accept_inputs(self, inputs: Any, first_row: int = 0) -> Any:
        """One request's inputs as features: loaded by the feature_loader, or checked against the schema.

        Args:
            first_row: the number of the first row, if the list is a part of a larger one.

        Raises:
            InputError: they do not fit. UserCodeError: the feature_loader raised.
        """
        loader = self.pipeline.stage("feature_loader")
        if loader is not None:
            try:
                features = loader(inputs)
            except MlappError:
                raise
            except (KeyError, TypeError, ValueError) as error:
                raise InputError([Problem(f"{loader.title} could not read the inputs: {error}")]) from error
            except self._call_errors as error:
                raise UserCodeError(loader.title, error) from error
            if features is None:
                raise DataError(f"{loader.title} returned None.", "Return the features.")
            return features
        return self.check(inputs, first_row)

    def check(self, inputs: Any, first_row: int = 0) -> Any:
        """Features with the schema's types, from inputs without a feature_loader.

        Args:
            first_row: as for `accept_inputs`.

        Raises:
            InputError: they do not fit.
        """
        schema = self.schema.features
        if type(inputs).__module__.partition(".")[0] in ("polars", "pyarrow"):
            inputs = normalization.normalize_predictions(inputs, "The caller")
        if schema.kind == "table":
            return make_request_table(inputs, schema, first_row, ignore_unknown=self.ignores_extra)
        if schema.kind == "array":
            rows = order_array_columns(inputs, schema, ignore_unknown=self.ignores_extra)
            return to_typed_array(rows, schema.shape, schema.dtype)
        return build_container_features(inputs, schema)

    def transform_features(self, features: Any) -> Any:
        """The predictor's input: the features after the feature_transformer, which runs once.

        Raises:
            UserCodeError: it raised.
        """
        stage = self.pipeline.stage("feature_transformer")
        if stage is not None:
            try:
                features = stage(convert_features_to_array(features) if wants_array_features(stage) else features)
            except MlappError:
                raise
            except self._call_errors as error:
                raise UserCodeError(stage.title, error) from error
        return convert_features_to_array(features) if self._wants_array else features

    def call_predictor(self, features: Any) -> Any:
        """The predictor's result for transformed features; can be a coroutine or an iterator.

        Raises:
            InputError: it raised, and the feature_loader made rows of another shape than in training.
            ModelError: it raised, and the model was fitted on other columns. UserCodeError: it raised.
        """
        try:
            return self.stage(self.estimator, features)
        except MlappError:
            raise
        except self._call_errors as error:
            self._refuse_other_prediction_shape(features, error)
            fitted_by = (self.pipeline.stage("trainer") or self.pipeline.stages["model"]).title
            other = explain_other_columns(self.estimator, features, fitted_by)
            raise other or UserCodeError(self.stage.title, error) from error

    def _refuse_other_prediction_shape(self, features: Any, error: BaseException) -> None:
        """Report an error as wrong inputs, if the feature_loader made rows of another shape than in training.

        The shape alone is no error: a model can accept images of any size.
        """
        schema, loader = self.schema.features, self.pipeline.stage("feature_loader")
        shape = list(getattr(features, "shape", ()))[1:]
        if loader is None or schema.kind != "array" or self.pipeline.stage("feature_transformer") is not None:
            return
        if hasattr(features, "shape") and shape != schema.shape:
            detail = (
                f"{loader.title} converted the inputs to rows of shape {shape}; the model takes rows of shape "
                f"{schema.shape}. inputs must be a list of rows, even for a single row"
            )
            raise InputError([Problem(detail)]) from error

    def predict(self, inputs: Any) -> Any:
        """Predictions for the inputs of a request: a list, array, Series or DataFrame, one entry a row.

        Raises:
            InputError: the inputs do not fit the schema.
            UserCodeError: a function of the user raised.
            DataError: not one prediction per row.
        """
        has_loader = self.pipeline.stage("feature_loader") is not None
        return self._predict(self.accept_inputs(inputs) if has_loader else self._decode_prediction_rows(inputs))

    def predict_features(self, features: Any) -> Any:
        """Predictions for features that are read and parsed as in training, without the feature_loader.

        Raises:
            as `predict`.
        """
        return self._predict(self.check(features))

    def _decode_prediction_rows(self, inputs: Any) -> Any:
        """As `check`, but common records and rows are decoded by the server's decoder, which is much faster."""
        rows = inputs
        if type(inputs) is dict:
            rows = _convert_prediction_columns_to_rows(inputs, self.schema.features)
        part = self._codec.convert(rows) if type(rows) is list else None
        if part is None or self._codec.join is None:
            return self.check(inputs)
        try:
            return self._codec.join([part])
        except UnicodeEncodeError:  # half of a surrogate pair, which only Python's texts can contain
            return self.check(inputs)

    @cached_property
    def _codec(self) -> RowCodec:
        return RowCodec(self.schema.features, takes_array=self.takes_array)

    def _predict(self, accepted: Any) -> Any:
        features = self.transform_features(accepted)
        result = finish_predictor_result(self.call_predictor(features), self.stage)
        predictions = normalize_predictor_result(result, features, self.stage)
        self.run_on_predict(features, result)
        return predictions

    def run_on_predict(self, features: Any, predictions: Any) -> bool:
        """Run every on_predict function. Logs errors instead of raising them; returns whether all succeeded."""
        is_well = True
        for stage in self.pipeline.callbacks:
            try:
                finish_predictor_result(stage(self.estimator, features, predictions), stage)
            except self._call_errors:
                log.exception("%s raised an error; the prediction was still sent", stage.title)
                is_well = False
        return is_well


def _convert_prediction_columns_to_rows(inputs: dict[Any, Any], schema: Schema) -> list[Any] | None:
    """One record, or columns of one length, as records or rows; None for anything else."""
    lists = sum(isinstance(value, (list, tuple)) for value in inputs.values())
    if not lists:
        return [inputs]
    if lists < len(inputs) or inputs.keys() != set(schema.names) or len(set(map(len, inputs.values()))) != 1:
        return None
    return list(zip(*(inputs[name] for name in schema.names), strict=True))


def load_predictor(pipeline: Pipeline, version: ModelVersion, *, extra: str = "refuse") -> Predictor:
    """A stored version, ready to predict.

    Args:
        extra: `serve.extra`: how to treat unknown columns.

    Raises:
        ModelError: its files cannot be read, or hold types that the app does not declare trusted.
        UserCodeError: the app's loader raised.
    """
    manifest = version.manifest
    estimator = load_model_estimator(
        pipeline, manifest.framework, manifest.model_format, version.files, manifest.parameters
    )
    return make_version_predictor(
        pipeline, version, estimator, frameworks.get_framework(manifest.framework), extra=extra
    )


def make_version_predictor(
    pipeline: Pipeline, version: ModelVersion, estimator: Any, framework: Framework, *, extra: str = "refuse"
) -> Predictor:
    """The model of a stored version, or its conversion, with the app's functions. `extra` as for `load_predictor`."""
    manifest = version.manifest
    return Predictor(
        pipeline,
        estimator,
        framework,
        manifest.schema,
        manifest.version,
        list_manifest_parameters(manifest),
        ignores_extra=extra == "ignore",
    )


def make_predictor(trained: TrainedModel, *, extra: str = "refuse") -> Predictor:
    """A model trained in this process, ready to predict. `extra` as for `load_predictor`."""
    return Predictor(
        trained.pipeline,
        trained.estimator,
        trained.framework,
        trained.schema,
        parameters=trained.parameters,
        ignores_extra=extra == "ignore",
    )


def select_predictor(pipeline: Pipeline, framework: Framework) -> Stage:
    """The user's predictor, or the framework's.

    The framework's predictor names several targets, and returns probabilities by class for `App(predict="proba")`.
    """
    own = pipeline.stage("predictor")
    if own is not None:
        return own
    function = framework.predictor
    if pipeline.prediction_kind == "proba":
        function = framework.probabilities
    elif len(pipeline.targets) > 1:
        function = partial(_predict_named_targets, framework.predictor, pipeline.targets)
    return Stage(ROLES["predictor"], function, 2, DefaultOptions(framework=framework.name))


def _predict_named_targets(
    predict: Callable[[Any, Any], Any], names: tuple[str, ...], model: Any, features: Any
) -> Any:
    """A table with a column per target if the model predicts a value for each; otherwise unchanged."""
    predictions = predict(model, features)
    if getattr(predictions, "ndim", 0) != 2 or predictions.shape[1] != len(names):
        return predictions
    import pandas as pd

    return pd.DataFrame(predictions, columns=list(names))
