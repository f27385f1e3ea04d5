"""Merges the schemas of parts of the data."""

from __future__ import annotations

from typing import Any

import msgspec

from mlapp.errors import DataError
from mlapp.schema.fields import Field, Schema
from mlapp.schema.infer import MOST_CATEGORIES


def merge_schemas(one: Schema, other: Schema) -> Schema:
    """The schema of both parts.

    Raises:
        DataError: their columns are not the same.
    """
    if one.kind != "table" or other.kind != "table":
        return one
    if one.names != other.names:
        differing = sorted(set(one.names) ^ set(other.names)) or other.names
        raise DataError(
            f"A part of the data has different columns from the first: {', '.join(differing[:10])}.",
            "Return the same columns in every part from the data_reader.",
        )
    return msgspec.structs.replace(
        one, fields=[_merge_fields(a, b) for a, b in zip(one.fields, other.fields, strict=True)]
    )


def _merge_fields(one: Field, other: Field) -> Field:
    wider = one
    if one.type != other.type:
        numbers = {one.type, other.type} == {"integer", "number"}
        wider = (
            (one if one.type == "number" else other)
            if numbers
            else msgspec.structs.replace(one, type="any", dtype="object")
        )
    return msgspec.structs.replace(
        wider,
        nullable=one.nullable or other.nullable,
        minimum=_merge_bound(min, one.minimum, other.minimum) if wider.type != "any" else None,
        maximum=_merge_bound(max, one.maximum, other.maximum) if wider.type != "any" else None,
        categories=_merge_categories(one, other),
        example=one.example if one.example is not None else other.example,
    )


def _merge_bound(choose: Any, one: Any, other: Any) -> Any:
    known = [value for value in (one, other) if value is not None]
    return choose(known) if known else None


def _merge_categories(one: Field, other: Field) -> list[Any] | None:
    if one.categories is None or other.categories is None or one.type != other.type:
        return None
    both = list(dict.fromkeys([*one.categories, *other.categories]))
    if one.type == "category":
        return both
    return sorted(both) if len(both) <= MOST_CATEGORIES else None
