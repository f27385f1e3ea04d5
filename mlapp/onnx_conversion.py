"""A predictor whose model is converted to ONNX, and answers as the original does."""

from __future__ import annotations

import dataclasses
from typing import Any

from mlapp import frameworks, prediction
from mlapp.frameworks import onnx
from mlapp.prediction import Predictor
from mlapp.schema import Schema
from mlapp.schema.fields import Field

ROWS = 256


def convert_to_onnx(predictor: Predictor, features: Any = None) -> Predictor:
    """The same predictor around an `OnnxModel`; the app's own functions call that.

    Args:
        features: rows to compare both on; rows drawn from the schema's ranges when absent.

    Raises:
        ModelError: it cannot be converted, or answers otherwise. MissingExtraError: the converter is not installed.
    """
    if isinstance(predictor.estimator, onnx.OnnxModel):
        return predictor
    transformed = predictor.transform_features(draw_rows(predictor.schema.features) if features is None else features)
    model = onnx.OnnxModel(predictor.framework.to_onnx(predictor.estimator, transformed))
    converted = dataclasses.replace(predictor, estimator=model, framework=frameworks.get_framework("onnx"))
    probabilities = None
    if hasattr(predictor.estimator, "predict_proba") and hasattr(model, "predict_proba"):
        probabilities = (predictor.estimator.predict_proba(transformed), model.predict_proba(transformed))
    expected, found = (
        prediction.finish_predictions(each.call_predictor(transformed), each.stage) for each in (predictor, converted)
    )
    onnx.require_same_predictions(expected, found, probabilities)
    return converted


def draw_rows(schema: Schema) -> Any:
    """Rows within the ranges that the training data had, the same each time."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(0)
    if schema.kind == "table":
        return pd.DataFrame({field.name: _draw_column(field, random) for field in schema.fields})
    if schema.kind == "array":
        return random.random((ROWS, *schema.shape)).astype(schema.dtype or "float32")
    return [schema.example] * 2


def _draw_column(field: Field, random: Any) -> Any:
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
