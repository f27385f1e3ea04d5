"""Reads the type in an annotation: without `Annotated`, and each type of a union."""

from __future__ import annotations

import types
import typing
from typing import Any


def strip_annotated(kind: Any) -> Any:
    """The type inside `Annotated[…]`; any other type unchanged."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def list_union_types(kind: Any) -> tuple[Any, ...]:
    """The types of a union, `float | None` or `Optional[float]`; empty for any other type."""
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else ()


def find_optional_type(kind: Any) -> Any | None:
    """The type `T` of `T | None`; None for a union of several types, and for any other type."""
    others = [option for option in list_union_types(kind) if option is not type(None)]
    return others[0] if len(others) == 1 else None
