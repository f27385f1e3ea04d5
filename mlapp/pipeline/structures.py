"""Types with named fields: dataclasses, TypedDict, NamedTuple, pydantic and attrs models, msgspec structs."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from mlapp.pipeline.annotations import find_optional_type, strip_annotated


@dataclasses.dataclass(frozen=True)
class Structure:
    """The fields of a type, by name, with their types; `required` are those without a default."""

    kind: Any
    fields: Mapping[str, Any]
    required: frozenset[str]

    def build(self, values: Mapping[str, Any]) -> Any:
        """Create an object from field values that already have the fields' types."""
        if hasattr(self.kind, "model_validate"):
            return self.kind.model_validate(dict(values))
        return self.kind(**values)


def find_structure(kind: Any) -> Structure | None:
    """The structure of a type, also inside `Annotated[…]` or `… | None`; None for a type without named fields."""
    kind = strip_annotated(kind)
    if (inner := find_optional_type(kind)) is not None:
        return find_structure(inner)
    if not inspect.isclass(kind):
        return None
    fields = _list_structure_fields(kind)
    if fields is None:
        return None
    hints = _read_structure_hints(kind)
    return Structure(
        kind,
        {name: hints.get(name, Any) for name in fields},
        frozenset(name for name, is_required in fields.items() if is_required),
    )


def is_structure(value: Any) -> bool:
    """Whether a value is an object with named fields. A plain mapping is not."""
    return find_structure(type(value)) is not None


def read_structure_values(value: Any) -> dict[str, Any]:
    """The fields of an object, or the items of a mapping."""
    if isinstance(value, Mapping):
        return dict(value)
    structure = find_structure(type(value))
    assert structure is not None
    return {name: getattr(value, name) for name in structure.fields}


def _list_structure_fields(kind: type) -> dict[str, bool] | None:
    """Field → whether it is required."""
    if typing.is_typeddict(kind):
        required: frozenset[str] = getattr(kind, "__required_keys__", frozenset())
        return {name: name in required for name in kind.__annotations__}
    if dataclasses.is_dataclass(kind):
        missing = dataclasses.MISSING
        return {
            field.name: field.default is missing and field.default_factory is missing
            for field in dataclasses.fields(kind)
            if field.init
        }
    if hasattr(kind, "model_fields") and hasattr(kind, "model_validate"):
        return {name: field.is_required() for name, field in kind.model_fields.items()}
    if issubclass(kind, msgspec.Struct):
        return {field.name: field.required for field in msgspec.structs.fields(kind)}
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        defaults = getattr(kind, "_field_defaults", {})
        return {name: name not in defaults for name in kind._fields}
    if hasattr(kind, "__attrs_attrs__"):
        import attrs

        attrs_class: Any = kind
        return {field.name: field.default is attrs.NOTHING for field in attrs_class.__attrs_attrs__ if field.init}
    return None


def _read_structure_hints(kind: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception:  # only a type checker can resolve the annotation; the field takes any value
        return {}
