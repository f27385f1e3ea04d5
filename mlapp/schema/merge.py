"""Merges the schemas of parts of the data."""

from __future__ import annotations

from typing import Any

import msgspec

from mlapp.errors import DataError
from mlapp.schema.fields import Field, Schema
from mlapp.schema.infer import MAX_CATEGORIES


def merge_schemas(first: Schema, second: Schema) -> Schema:
    """The schema of both parts.

    Raises:
        DataError: their columns are not the same.
    """
    if first.kind != "table" or second.kind != "table":
        return first
    if first.names != second.names:
        differing = sorted(set(first.names) ^ set(second.names)) or second.names
        raise DataError(
            f"A part of the data has different columns from the first: {', '.join(differing[:10])}.",
            "Return the same columns in every part from the data_reader.",
        )
    return msgspec.structs.replace(
        first, fields=[_merge_fields(a, b) for a, b in zip(first.fields, second.fields, strict=True)]
    )


def _merge_fields(first: Field, second: Field) -> Field:
    wider = first
    if first.type != second.type:
        numbers = {first.type, second.type} == {"integer", "number"}
        wider = (
            (first if first.type == "number" else second)
            if numbers
            else msgspec.structs.replace(first, type="any", dtype="object")
        )
    return msgspec.structs.replace(
        wider,
        nullable=first.nullable or second.nullable,
        minimum=_merge_bound(min, first.minimum, second.minimum) if wider.type != "any" else None,
        maximum=_merge_bound(max, first.maximum, second.maximum) if wider.type != "any" else None,
        categories=_merge_categories(first, second),
        example=first.example if first.example is not None else second.example,
    )


def _merge_bound(choose: Any, first: Any, second: Any) -> Any:
    bounds = [value for value in (first, second) if value is not None]
    return choose(bounds) if bounds else None


def _merge_categories(first: Field, second: Field) -> list[Any] | None:
    if first.categories is None or second.categories is None or first.type != second.type:
        return None
    both = list(dict.fromkeys([*first.categories, *second.categories]))
    if first.type == "category":
        return both
    return sorted(both) if len(both) <= MAX_CATEGORIES else None
