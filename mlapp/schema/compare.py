"""Compares the features of a model's training with the current ones."""

from __future__ import annotations

from dataclasses import dataclass

from mlapp.schema.durations import parse_duration
from mlapp.schema.fields import Field, Schema


@dataclass(frozen=True)
class Difference:
    """One difference. `breaks`: the model refuses such rows; otherwise it is a warning."""

    column: str
    what: str
    breaks: bool


def compare_schemas(trained: Schema, current: Schema) -> list[Difference]:
    """The differences, column by column. Empty if the data fits the model."""
    trained_fields, current_fields = (
        {field.name: field for field in trained.fields},
        {field.name: field for field in current.fields},
    )
    differences = [Difference(name, "is missing", True) for name in trained_fields if name not in current_fields]
    for name, field in trained_fields.items():
        if name in current_fields:
            differences += _find_schema_differences(field, current_fields[name])
    differences += [Difference(name, "is new", True) for name in current_fields if name not in trained_fields]
    return differences


def _find_schema_differences(trained: Field, current: Field) -> list[Difference]:
    name = trained.name
    fits = (
        trained.type == current.type
        or (trained.type == "number" and current.type == "integer")
        or trained.type == "any"
    )
    if not fits:
        return [Difference(name, f"was {trained.type}, is {current.type}", True)]
    differences = []
    if current.nullable and not trained.nullable:
        differences.append(Difference(name, "has missing values now", True))
    if trained.categories is not None and current.categories is not None:
        new = [str(value) for value in current.categories if value not in trained.categories]
        if new:
            listing = ", ".join(new[:5]) + (", …" if len(new) > 5 else "")
            differences.append(Difference(name, f"has new values: {listing}", trained.type == "category"))
    low, high = (trained.minimum, current.minimum), (trained.maximum, current.maximum)
    if _is_bound_below(low[1], low[0], current):
        differences.append(Difference(name, f"goes down to {low[1]}, was {low[0]} at least", False))
    if _is_bound_below(high[0], high[1], current):
        differences.append(Difference(name, f"goes up to {high[1]}, was {high[0]} at most", False))
    return differences


def _is_bound_below(one: float | str | None, other: float | str | None, field: Field) -> bool:
    """Whether the first bound is less. Times and periods are ISO texts, which sort in the order of time."""
    if isinstance(one, str) and isinstance(other, str):
        return parse_duration(one) < parse_duration(other) if field.type == "duration" else one < other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one < other
    return False
