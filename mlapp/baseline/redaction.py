"""Applies the rules `drop`, `hash` and `round(5)` of `monitor.columns` to schemas and values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from mlapp.schema import Field, Schema
from mlapp.schema.text_forms import TEXT_FORMS

ROUND = re.compile(r"round\(\s*(\d+(?:\.\d+)?)\s*\)")
NO_RULES: Mapping[str, str] = MappingProxyType({})
PLACEHOLDERS: dict[str, Any] = {
    "string": "text",
    "integer": 0,
    "number": 0.0,
    "boolean": False,
    "datetime": "2000-01-01T00:00:00",
    **{name: form.placeholder for name, form in TEXT_FORMS.items()},
}
"""JSON type → the example of a column whose values may not be stored."""


def is_redacted_column(rules: Mapping[str, str], column: str) -> bool:
    """Whether the column's values may not be stored unchanged."""
    return rules.get(column) in ("drop", "hash")


def find_redaction_step(rules: Mapping[str, str], column: str) -> float | None:
    """The step to which the column's numbers are rounded, or None."""
    match = ROUND.fullmatch(rules.get(column, ""))
    return float(match[1]) if match else None


def round_to_redaction_step(value: Any, step: float) -> Any:
    """The nearest multiple of `step`; None for a value that is not a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(number) or not step:
        return None
    steps = number / step
    rounded = round(steps) * step if math.isfinite(steps) else number  # a float so large is a multiple of the step
    return int(rounded) if isinstance(value, int) and rounded == int(rounded) else rounded


def redact_schema(schema: Schema, rules: Mapping[str, str]) -> Schema:
    """The schema without examples, ranges and lists of texts of columns that the rules redact.

    The categories of a pandas categorical stay: they are its type.
    """
    if schema.kind != "table" or not any(name in rules for name in schema.names):
        return schema
    return msgspec.structs.replace(schema, fields=[_redact_field(field, rules) for field in schema.fields])


def _redact_field(field: Field, rules: Mapping[str, str]) -> Field:
    step = find_redaction_step(rules, field.name)
    if step is not None and field.type in ("integer", "number"):
        ends = {name: round_to_redaction_step(getattr(field, name), step) for name in ("minimum", "maximum", "example")}
        return msgspec.structs.replace(field, **ends)
    if not is_redacted_column(rules, field.name):
        return field
    if field.type == "category":
        return msgspec.structs.replace(field, example=(field.categories or [None])[0])
    return msgspec.structs.replace(
        field,
        minimum=None,
        maximum=None,
        categories=None,
        example=PLACEHOLDERS.get(field.type),
        is_redacted=True,
    )
