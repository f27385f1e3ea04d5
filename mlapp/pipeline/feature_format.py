"""The form in which a function wants its features: a DataFrame, or an array or an iterator where it is so annotated."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from mlapp.pipeline.stage import Stage


def wants_array(stage: Stage | None) -> bool:
    """Whether the argument that the role calls `features` is annotated with NumPy's array."""
    kind = _features_type(stage)
    return inspect.isclass(kind) and kind.__module__ == "numpy" and kind.__name__ == "ndarray"


def wants_batches(stage: Stage | None) -> bool:
    """Whether that argument is annotated as an iterator: the features come part by part."""
    return _features_type(stage) in (Iterator, Iterable)


def _features_type(stage: Stage | None) -> Any:
    if stage is None or "features" not in stage.role.receives:
        return None
    arguments = list(stage.signature.parameters.values())
    at = stage.role.receives.index("features")
    if at >= len(arguments):
        return None
    annotation = arguments[at].annotation
    return getattr(annotation, "__origin__", annotation)


def convert_to_array(features: Any) -> Any:
    """A DataFrame as a two-dimensional array, without a copy if its columns are contiguous; anything else unchanged."""
    return features.to_numpy() if hasattr(features, "to_numpy") else features
