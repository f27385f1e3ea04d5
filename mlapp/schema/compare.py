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


def compare_schemas(then: Schema, now: Schema) -> list[Difference]:
    """The differences, column by column. Empty if the data fits the model."""
    before, today = {field.name: field for field in then.fields}, {field.name: field for field in now.fields}
    found = [Difference(name, "is missing", True) for name in before if name not in today]
    for name, field in before.items():
        if name in today:
            found += _find_schema_differences(field, today[name])
    found += [Difference(name, "is new", True) for name in today if name not in before]
    return found


def _find_schema_differences(then: Field, now: Field) -> list[Difference]:
    name = then.name
    fits = then.type == now.type or (then.type == "number" and now.type == "integer") or then.type == "any"
    if not fits:
        return [Difference(name, f"was {then.type}, is {now.type}", True)]
    found = []
    if now.nullable and not then.nullable:
        found.append(Difference(name, "has missing values now", True))
    if then.categories is not None and now.categories is not None:
        new = [str(value) for value in now.categories if value not in then.categories]
        if new:
            shown = ", ".join(new[:5]) + (", …" if len(new) > 5 else "")
            found.append(Difference(name, f"has new values: {shown}", then.type == "category"))
    low, high = (then.minimum, now.minimum), (then.maximum, now.maximum)
    if _is_smaller_bound(low[1], low[0], now):
        found.append(Difference(name, f"goes down to {low[1]}, was {low[0]} at least", False))
    if _is_smaller_bound(high[0], high[1], now):
        found.append(Difference(name, f"goes up to {high[1]}, was {high[0]} at most", False))
    return found


def _is_smaller_bound(one: float | str | None, other: float | str | None, field: Field) -> bool:
    """Whether the first bound is less. Times and periods are ISO texts, which sort in the order of time."""
    if isinstance(one, str) and isinstance(other, str):
        return parse_duration(one) < parse_duration(other) if field.type == "duration" else one < other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one < other
    return False
