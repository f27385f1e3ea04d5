"""Converts a predictor's model to ONNX, and checks that both models predict the same."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import msgspec

from mlapp import distribution, frameworks, prediction
from mlapp.frameworks import onnx
from mlapp.model import require_declared_model_format
from mlapp.pipeline import Pipeline
from mlapp.prediction import Predictor
from mlapp.predictor_results import finish_predictor_result
from mlapp.schema import Schema
from mlapp.schema.fields import Field
from mlapp.store import ModelVersion

log = logging.getLogger("mlapp")
ROWS = 256


def convert_to_onnx(predictor: Predictor, features: Any = None) -> Predictor:
    """The predictor with an `OnnxModel`, which the app's functions then receive.

    Args:
        features: rows to compare both models on; by default rows drawn from the schema's ranges.

    Raises:
        ModelError: it cannot be converted, or its answers differ. MissingExtraError: the converter is not installed.
    """
    if isinstance(predictor.estimator, onnx.OnnxModel):
        return predictor
    transformed = predictor.transform_features(
        draw_conversion_rows(predictor.schema.features) if features is None else features
    )
    model = onnx.OnnxModel(predictor.framework.to_onnx(predictor.estimator, transformed))
    converted = dataclasses.replace(predictor, estimator=model, framework=frameworks.get_framework("onnx"))
    probabilities = None
    if hasattr(predictor.estimator, "predict_proba") and hasattr(model, "predict_proba"):
        probabilities = (predictor.estimator.predict_proba(transformed), model.predict_proba(transformed))
    expected, actual = (
        finish_predictor_result(version.call_predictor(transformed), version.stage)
        for version in (predictor, converted)
    )
    onnx.require_same_onnx_predictions(expected, actual, probabilities)
    return converted


def load_onnx_conversion(
    pipeline: Pipeline, version: ModelVersion, folder: Path | None, *, is_writable: bool = True, extra: str = "refuse"
) -> Predictor:
    """A stored version, converted by `convert_to_onnx`. A stored conversion needs neither the model's framework nor the
    converter.

    Args:
        folder: the folder of stored conversions; None stores none.
        is_writable: whether a new conversion is stored there.
        extra: `serve.extra`.

    Raises:
        ModelError, MissingExtraError: as `convert_to_onnx`, and as `prediction.load_predictor`.
    """
    if folder is None or not _is_onnx_conversion_kept(pipeline, version):
        return convert_to_onnx(prediction.load_predictor(pipeline, version, extra=extra))
    manifest = version.manifest
    file = folder / _name_conversion(version)
    require_declared_model_format(pipeline, frameworks.get_framework(manifest.framework), manifest.model_format)
    try:
        content = file.read_bytes()
    except OSError:
        converted = convert_to_onnx(prediction.load_predictor(pipeline, version, extra=extra))
        if is_writable:
            _keep_conversion(converted.estimator.content, file)
        return converted
    model, framework = onnx.OnnxModel(content), frameworks.get_framework("onnx")
    return prediction.make_version_predictor(pipeline, version, model, framework, extra=extra)


def find_onnx_conversion(pipeline: Pipeline, version: ModelVersion, folder: Path) -> Path | None:
    """The stored conversion of a version; None if there is none, as for a model that the app itself loads."""
    file = folder / _name_conversion(version)
    return file if _is_onnx_conversion_kept(pipeline, version) and file.is_file() else None


def _is_onnx_conversion_kept(pipeline: Pipeline, version: ModelVersion) -> bool:
    return pipeline.stage("loader") is None and version.manifest.model_format != "onnx"


def _name_conversion(version: ModelVersion) -> str:
    """The name of the file, which changes with the version's files and with the version of mlapp."""
    files = {name: file.sha256 for name, file in version.manifest.files.items()}
    identity = msgspec.json.encode([files, distribution.version()], order="sorted")
    return f"{version.app}-{version.version}-{hashlib.sha256(identity).hexdigest()[:16]}.onnx"


def _keep_conversion(content: bytes, file: Path) -> None:
    """Write a conversion. If the disk is full or read-only, the next start converts again."""
    temporary = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        log.debug("the conversion to ONNX is not kept: %s", error)


def draw_conversion_rows(schema: Schema) -> Any:
    """Rows within the ranges of the training data, the same at each call."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(0)
    if schema.kind == "table":
        return pd.DataFrame({field.name: _draw_conversion_column(field, random) for field in schema.fields})
    if schema.kind == "array":
        return random.random((ROWS, *schema.shape)).astype(schema.dtype or "float32")
    return [schema.example] * 2


def _draw_conversion_column(field: Field, random: Any) -> Any:
    import pandas as pd

    low, high = field.minimum, field.maximum
    if field.categories:
        values = random.choice(pd.Series(field.categories, dtype=object).to_numpy(), ROWS)
    elif isinstance(low, (int, float)) and isinstance(high, (int, float)):
        is_whole = field.type == "integer"
        values = random.integers(int(low), int(high) + 1, ROWS) if is_whole else random.uniform(low, high, ROWS)
    else:
        values = [field.example] * ROWS
    dtype: Any = field.dtype
    return pd.Series(values).astype(dtype)
