"""The form in which a function wants its features: a DataFrame, or an array where its annotation says so."""

from __future__ import annotations

import inspect
from typing import Any

from mlapp.pipeline.stage import Stage


def wants_array(stage: Stage | None) -> bool:
    """Whether the argument that the role calls `features` is annotated with NumPy's array."""
    if stage is None or "features" not in stage.role.receives:
        return False
    arguments = list(stage.signature.parameters.values())
    at = stage.role.receives.index("features")
    if at >= len(arguments):
        return False
    annotation = arguments[at].annotation
    kind = getattr(annotation, "__origin__", annotation)
    return inspect.isclass(kind) and kind.__module__ == "numpy" and kind.__name__ == "ndarray"


def as_array(features: Any) -> Any:
    """A DataFrame as a two-dimensional array, without a copy where its columns lie together; anything else as it is."""
    return features.to_numpy() if hasattr(features, "to_numpy") else features
