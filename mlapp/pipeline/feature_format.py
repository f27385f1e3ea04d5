"""The format of a function's features: a DataFrame, or an array or iterator if the annotation says so."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from mlapp.pipeline.stage import Stage


def wants_array_features(stage: Stage | None) -> bool:
    """Whether the role's `features` argument is annotated with NumPy's array."""
    kind = _find_feature_format_type(stage)
    return inspect.isclass(kind) and kind.__module__ == "numpy" and kind.__name__ == "ndarray"


def wants_batched_features(stage: Stage | None) -> bool:
    """Whether the role's `features` argument is annotated as an iterator over parts."""
    return _find_feature_format_type(stage) in (Iterator, Iterable)


def _find_feature_format_type(stage: Stage | None) -> Any:
    if stage is None or "features" not in stage.role.receives:
        return None
    arguments = list(stage.signature.parameters.values())
    position = stage.role.receives.index("features")
    if position >= len(arguments):
        return None
    annotation = arguments[position].annotation
    return getattr(annotation, "__origin__", annotation)


def convert_features_to_array(features: Any) -> Any:
    """A DataFrame as a two-dimensional array, without a copy if its columns are contiguous; anything else unchanged."""
    return features.to_numpy() if hasattr(features, "to_numpy") else features
