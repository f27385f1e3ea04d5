"""A model that is ready to serve: the predictor, the codec of its schema, and its description."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from mlapp import prediction
from mlapp.app import App
from mlapp.baseline import Baseline, read_baseline
from mlapp.bundle.bundle import CONVERSIONS, MANIFEST, MODEL
from mlapp.config import Serve
from mlapp.errors import StoreError, UsageError
from mlapp.model import TrainedModel
from mlapp.normalization import normalize_predictions, normalize_to_rows
from mlapp.normalization.scalars import JSON_TYPES
from mlapp.pipeline import Pipeline
from mlapp.pipeline.parameter_values import to_plain_parameter_value
from mlapp.prediction import Predictor
from mlapp.predictor_results import has_streamed_predictor_results, wrong_prediction_count_error
from mlapp.provenance import Difference, compare_trained_libraries
from mlapp.serving.decoding.codec import Codec
from mlapp.store import Manifest, ModelVersion, Store

log = logging.getLogger("mlapp.serving")


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model in memory. `manifest` is None for a model trained in this process and not stored."""

    predictor: Predictor
    codec: Codec
    manifest: Manifest | None
    details: dict[str, Any]
    tail: bytes
    """The end of every answer's body."""
    batching: bool = True
    """Whether requests may share a call: a row's prediction does not depend on other rows."""
    baseline: Baseline | None = None
    """Baseline of its training data; None if the version has none."""

    @property
    def version(self) -> str | None:
        """The version as text; None for a model that is not stored."""
        return None if self.predictor.version is None else str(self.predictor.version)

    @property
    def survives_fork(self) -> bool:
        """Whether a forked child can use its parent's model, which has not predicted yet."""
        return self.predictor.framework.survives_fork

    @cached_property
    def is_async(self) -> bool:
        """Whether the predictor is an `async def`."""
        return inspect.iscoroutinefunction(self.predictor.stage.function)

    @cached_property
    def is_stream(self) -> bool:
        """Whether the predictor yields."""
        return has_streamed_predictor_results(self.predictor.stage)

    def list_differences(self) -> list[Difference]:
        """The libraries whose versions differ from those in training."""
        return compare_trained_libraries(self.manifest.libraries, self.manifest.python) if self.manifest else []

    def strip_parts(self, parts: Sequence[Any]) -> Sequence[Any]:
        """The features of several requests in few objects, for `combine_stripped`."""
        return self.codec.strip_parts(parts)

    def combine_stripped(self, parts: list[Any]) -> Any:
        """The features of stripped parts of one or more batches as one table, array or list."""
        return self.codec.combine_stripped(parts)

    @cached_property
    def feature_names(self) -> list[str]:
        """The names of the features; positions for rows of an array."""
        schema = self.predictor.schema.features
        return schema.names or [str(at) for at in range(math.prod(schema.shape))]

    def predict_features(self, features: Any) -> Any:
        """The predictor's unchecked result for the codec's features."""
        return self.predictor.call_predictor(self.predictor.transform_features(features))

    def list_rows(self, predictions: Any, rows: int) -> list[Any]:
        """The predictions as a list of JSON values, one per row.

        Raises:
            DataError: not one prediction per row, or a value that JSON cannot represent.
        """
        if type(predictions) is list and len(predictions) == rows and JSON_TYPES.issuperset(map(type, predictions)):
            return predictions
        title = self._title
        values = normalize_to_rows(normalize_predictions(predictions, title), title)
        if len(values) != rows:
            raise wrong_prediction_count_error(self.predictor.stage, len(values), rows)
        return values

    @cached_property
    def _title(self) -> str:
        return self.predictor.stage.title


def load_served_model(
    app: Pipeline, model: str | int | TrainedModel, store: Store | None, settings: Serve
) -> ServedModel:
    """The model to serve.

    Raises:
        UsageError: no such version or alias. ModelError, StoreError: it cannot be loaded.
    """
    if isinstance(model, TrainedModel):
        return serve_trained_model(model, settings.extra)
    if store is None:
        if not isinstance(app, App):
            raise UsageError(f"{app!r} has no store.", "Pass the store too.")
        store = app.store()
    return load_served_model_version(app, store.get(app.name, model), settings.runtime, settings.extra)


def load_served_model_version(
    pipeline: Pipeline, version: ModelVersion, runtime: str = "native", extra: str = "refuse"
) -> ServedModel:
    """A stored version.

    Args:
        runtime: `onnx` converts the model, and checks that its answers are the same.
        extra: `serve.extra`.

    Raises:
        ModelError: it cannot be loaded or converted. UserCodeError: the app's loader raised.
    """
    manifest = version.manifest
    details = {
        "created": manifest.created.isoformat(),
        "metrics": manifest.metrics,
        "parameters": manifest.parameters,
        "framework": manifest.framework,
    }
    if runtime == "onnx":
        from mlapp.onnx_conversion import load_onnx_conversion

        folder, is_writable = _find_served_conversion_folder(pipeline)
        predictor = load_onnx_conversion(pipeline, version, folder, is_writable=is_writable, extra=extra)
        details["framework"] = f"{manifest.framework} as onnx"
    else:
        predictor = prediction.load_predictor(pipeline, version, extra=extra)
    return _make_served_model(predictor, manifest, details, manifest.batching, _load_served_model_baseline(version))


def _find_served_conversion_folder(pipeline: Pipeline) -> tuple[Path | None, bool]:
    """The folder of conversions to ONNX, or None; and whether new conversions can be stored in it.

    None if the store requires signatures, which conversions lack. A bundle never changes: it has the conversion of its
    version, or none.
    """
    if not isinstance(pipeline, App) or pipeline.settings.store.verify != "none":
        return None, False
    bundle = pipeline.root.parent
    if (bundle / MANIFEST).is_file():
        folder = bundle / MODEL / CONVERSIONS
        return (folder if folder.is_dir() else None), False
    return pipeline.root / ".mlapp" / "onnx", True


def serve_trained_model(trained: TrainedModel, extra: str = "refuse") -> ServedModel:
    """A model trained in this process."""
    details = {
        "created": trained.started.isoformat(),
        "metrics": {split: dict(values) for split, values in trained.metrics.items()},
        "parameters": to_plain_parameter_value(dict(trained.parameters)),
        "framework": trained.framework.name,
    }
    predictor = prediction.make_predictor(trained, extra=extra)
    return _make_served_model(predictor, None, details, trained.batching, trained.baseline)


def _load_served_model_baseline(version: ModelVersion) -> Baseline | None:
    """The version's baseline; None, with a warning, if it cannot be read."""
    try:
        return read_baseline(version.files)
    except StoreError as error:
        log.warning("%s %s is not compared with its training data: %s", version.app, version.version, error.what)
        return None


def _make_served_model(
    predictor: Predictor,
    manifest: Manifest | None,
    details: dict[str, Any],
    batching: bool,
    baseline: Baseline | None,
) -> ServedModel:
    predictor = replace(predictor, is_served=True)
    version = None if predictor.version is None else str(predictor.version)
    name = msgspec.json.encode(predictor.pipeline.name)
    tail = b',"model":' + name + b',"version":' + msgspec.json.encode(version) + b"}"
    return ServedModel(predictor, Codec(predictor), manifest, details, tail, batching, baseline)
