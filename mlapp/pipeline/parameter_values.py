"""Converts parameter values from a text, a file or a manifest to the declared type, and back to JSON values."""

from __future__ import annotations

import datetime
import decimal
import enum
import inspect
import math
import typing
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import msgspec

from mlapp.errors import suggest_nearest
from mlapp.pipeline.annotations import list_union_types, strip_annotated
from mlapp.pipeline.structures import Structure, find_structure, is_structure, read_structure_values
from mlapp.schema.json_values import to_json_value

TRUE = {"true", "yes", "on", "1"}
FALSE = {"false", "no", "off", "0"}
SCALARS = (int, float, str, datetime.date, datetime.datetime, datetime.time, datetime.timedelta)
"""Types that msgspec can parse from text."""
SEQUENCES = (list, tuple, set, frozenset)


class UnfitValueError(ValueError):
    """A value does not have the expected type.

    Attributes:
        kind: the expected type.
        path: the names of the fields that lead to the value inside the parameter.
        problem: a description of the error; empty if the type says enough.
    """

    def __init__(self, value: Any, kind: Any, path: Sequence[str] = (), problem: str = "") -> None:
        super().__init__(problem or f"{value!r} is not of the type {kind}")
        self.value, self.kind, self.path, self.problem = value, kind, tuple(path), problem

    def prefix_path(self, name: str) -> UnfitValueError:
        """The same error, reported for the object that holds this value in its field `name`."""
        return UnfitValueError(self.value, self.kind, (name, *self.path), self.problem)


def convert_parameter_value(value: Any, kind: Any) -> Any:
    """Convert `value` to the type `kind`. Parses texts from a command line.

    Raises:
        UnfitValueError: the value cannot be converted.
    """
    try:
        return _convert_parameter_to_type(value, kind)
    except UnfitValueError:
        raise
    except (ValueError, TypeError, msgspec.ValidationError):
        raise UnfitValueError(value, kind) from None


def to_plain_parameter_value(value: Any) -> Any:
    """A parameter's value as a JSON value that `convert_parameter_value` converts back where possible.

    Objects with fields become mappings, enumerations their value, times ISO 8601. Functions and other objects become
    their text, for display only.
    """
    if isinstance(value, enum.Enum):
        inner = value.value
        return to_plain_parameter_value(inner) if isinstance(inner, (bool, int, float, str)) else value.name
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, datetime.timedelta):
        return msgspec.to_builtins(value)
    if isinstance(value, (datetime.time, decimal.Decimal)):
        return str(value)
    if isinstance(value, Mapping) or is_structure(value):
        return {
            str(to_plain_parameter_value(name)): to_plain_parameter_value(item)
            for name, item in read_structure_values(value).items()
        }
    if isinstance(value, (list, tuple)):
        return [to_plain_parameter_value(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(
            (to_plain_parameter_value(item) for item in value), key=lambda item: (type(item).__name__, str(item))
        )
    return to_json_value(value)


def format_parameter_value_type(kind: Any) -> str:
    """A type as text for users: `float`, `int or none`, `one of l1, l2`."""
    kind = strip_annotated(kind)
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if options := list_union_types(kind):
        return " or ".join(format_parameter_value_type(option) for option in options)
    if kind is type(None):
        return "none"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return f"one of {', '.join(str(member.value) for member in kind)}"
    if origin is list or kind is list:
        inner = typing.get_args(kind)
        return f"a list of {format_parameter_value_type(inner[0])}" if inner else "a list"
    if (structure := find_structure(kind)) is not None:
        return f"{kind.__name__} (an object with {', '.join(structure.fields)})"
    return getattr(kind, "__name__", str(kind))


def make_parameter_example(kind: Any) -> str:
    """A sample value of the type for a hint, such as `0.1`."""
    kind = strip_annotated(kind)
    if typing.get_origin(kind) is typing.Literal:
        return str(typing.get_args(kind)[0])
    if (structure := find_structure(kind)) is not None:
        return "'{" + ", ".join(f'"{field}": …' for field in structure.fields) + "}'"
    examples = {int: "10", float: "0.1", bool: "true", str: "text", datetime.date: "2026-01-31", Path: "path"}
    return examples.get(kind, "value") if isinstance(kind, type) else "value"


def _convert_parameter_to_type(value: Any, kind: Any) -> Any:
    """Like `convert_parameter_value`, but also raises ValueError, TypeError and msgspec's ValidationError."""
    kind = strip_annotated(kind)
    if union := list_union_types(kind):
        return _convert_union_parameter(value, union)
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any or kind is object:
        return _parse_literal_parameter_value(value) if isinstance(value, str) else value
    value = _unwrap_numpy_scalar(value)
    if origin is typing.Literal:
        return _convert_literal_parameter(value, options)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _convert_enum_parameter(value, kind)
    if kind is bool:
        return _convert_bool_parameter(value)
    if (structure := find_structure(kind)) is not None:
        return _convert_structure_parameter(value, structure)
    if isinstance(kind, type) and issubclass(kind, Path):
        return kind(value)
    container = _find_container_type(origin or kind)
    if container is dict:
        return _convert_mapping_parameter(value, options)
    if container is not None:
        return _convert_sequence_parameter(value, container, options)
    if kind in SCALARS:
        return _convert_scalar_parameter(value, kind)
    if isinstance(kind, type) and not isinstance(value, kind):
        return _build_parameter_from_text(value, kind)
    return value


def _unwrap_numpy_scalar(value: Any) -> Any:
    is_scalar = hasattr(value, "item") and hasattr(value, "dtype") and getattr(value, "ndim", 0) == 0
    return value.item() if is_scalar else value


def _find_container_type(kind: Any) -> type | None:
    """The container to build for a type: `dict`, `list`, `set`, `tuple` …; None for a type of a single value."""
    if kind is dict or kind in SEQUENCES:
        container: type = kind
        return container
    if inspect.isclass(kind) and kind.__module__ == "collections.abc":
        if issubclass(kind, Mapping):
            return dict
        if issubclass(kind, Iterable):
            return set if issubclass(kind, Set) else list
    return None


def _build_parameter_from_text(value: Any, kind: type) -> Any:
    is_text = isinstance(value, str) or (kind is decimal.Decimal and type(value) in (int, float))
    if not is_text:
        raise ValueError
    return kind(str(value))


def _convert_literal_parameter(value: Any, options: tuple[Any, ...]) -> Any:
    for option in options:
        if option == value or str(option) == value:
            return option
    raise ValueError


def _convert_scalar_parameter(value: Any, kind: Any) -> Any:
    if kind is datetime.date and isinstance(value, datetime.datetime):
        return value.date()
    if kind is datetime.datetime and type(value) is datetime.date:
        return datetime.datetime(value.year, value.month, value.day)
    if kind is datetime.datetime and isinstance(value, str) and len(value) == len("2026-01-31"):
        value = f"{value}T00:00:00"
    return msgspec.convert(value, kind, strict=not isinstance(value, str))


def _convert_union_parameter(value: Any, options: tuple[Any, ...]) -> Any:
    if type(None) in options and (value is None or (isinstance(value, str) and value.lower() in ("none", "null", ""))):
        return None
    others = [option for option in options if option is not type(None)]
    for option in sorted(others, key=lambda option: option is str):
        try:
            return _convert_parameter_to_type(value, option)
        except UnfitValueError:
            if len(others) == 1:
                raise
        except (ValueError, TypeError, msgspec.ValidationError):
            continue
    raise ValueError


def _convert_enum_parameter(value: Any, kind: type[enum.Enum]) -> enum.Enum:
    for member in kind:
        texts = (str(member.value), member.name, f"{kind.__name__}.{member.name}")
        if value is member or value == member.value or value in texts:
            return member
    raise ValueError


def _convert_bool_parameter(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in TRUE | FALSE:
        return value.lower() in TRUE
    raise ValueError


def _convert_sequence_parameter(value: Any, container: Any, options: tuple[Any, ...]) -> Any:
    if isinstance(value, str):
        parts = msgspec.json.decode(value) if value.startswith("[") else [part for part in value.split(",") if part]
    elif isinstance(value, Mapping):
        raise ValueError
    else:
        parts = list(value)
    inner = options[0] if options else Any
    if container is tuple and options and options[-1] is not Ellipsis:
        if len(parts) != len(options):
            raise ValueError
        return tuple(_convert_parameter_to_type(part, each) for part, each in zip(parts, options, strict=True))
    return container(_convert_parameter_to_type(part, inner) for part in parts)


def _convert_mapping_parameter(value: Any, options: tuple[Any, ...]) -> dict[Any, Any]:
    members = _parse_mapping_parameter(value)
    key_kind, item_kind = options if len(options) == 2 else (Any, Any)
    return {
        name if key_kind is Any else convert_parameter_value(name, key_kind): _convert_member_parameter(
            name, item, item_kind
        )
        for name, item in members.items()
    }


def _convert_structure_parameter(value: Any, structure: Structure) -> Any:
    if not typing.is_typeddict(structure.kind) and isinstance(value, structure.kind):
        return value
    try:
        members = _parse_mapping_parameter(value)
    except (ValueError, TypeError):
        raise UnfitValueError(value, structure.kind) from None
    for name in members:
        if name not in structure.fields:
            problem = f"has no field '{name}'.{suggest_nearest(str(name), structure.fields)}"
            raise UnfitValueError(value, structure.kind, problem=problem)
    missing = sorted(structure.required - set(members))
    if missing:
        raise UnfitValueError(value, structure.kind, problem=f"lacks the field '{missing[0]}'.")
    values = {
        str(name): _convert_member_parameter(name, item, structure.fields[name]) for name, item in members.items()
    }
    try:
        return structure.build(values)
    except (ValueError, TypeError) as error:
        raise UnfitValueError(
            value, structure.kind, problem=f"is refused: {_shorten_pydantic_message(error)}"
        ) from error


def _convert_member_parameter(name: Any, value: Any, kind: Any) -> Any:
    try:
        return convert_parameter_value(value, kind)
    except UnfitValueError as error:
        raise error.prefix_path(str(name)) from None


def _parse_mapping_parameter(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        value = msgspec.json.decode(value)
    if not isinstance(value, Mapping):
        raise ValueError
    return value


def _shorten_pydantic_message(error: Exception) -> str:
    """The first line that names a field: pydantic's message has a heading, then one line per field."""
    if hasattr(error, "errors") and callable(error.errors):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    return str(error).partition("\n")[0]


def _parse_literal_parameter_value(text: str) -> Any:
    """Parse the text of a parameter without a type: JSON if it is valid, otherwise the text itself."""
    if text.lower() == "none":
        return None
    try:
        return msgspec.json.decode(text.lower() if text in ("True", "False") else text)
    except msgspec.DecodeError:
        return text
