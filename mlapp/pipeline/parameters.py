"""Parameters: what the stages' signatures declare, and how a given value reaches the one that declares it."""

from __future__ import annotations

import datetime
import enum
import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mlapp.errors import UsageError, nearest
from mlapp.pipeline.stage import Stage

REQUIRED = inspect.Parameter.empty
TRUE = {"true", "yes", "on", "1"}
FALSE = {"false", "no", "off", "0"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of one stage. `kind` is its annotation, the type of its default, or `Any`."""

    stage: str
    name: str
    kind: Any
    default: Any = REQUIRED

    @property
    def full_name(self) -> str:
        return f"{self.stage}.{self.name}"

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    def convert(self, value: Any) -> Any:
        """`value` as the parameter's type. A text is parsed, as it comes from a command line.

        Raises:
            UsageError: it is not of that type; names the parameter.
        """
        try:
            return _convert(value, self.kind)
        except (ValueError, TypeError, msgspec.ValidationError):
            wanted = type_name(self.kind)
            raise UsageError(
                f"Parameter '{self.name}' of {self.stage} takes {wanted}, not {value!r}.",
                f"Give it as {self.name}={_hint(self.kind)}.",
            ) from None


def declared(stages: Iterable[Stage]) -> list[Parameter]:
    """The parameters of these stages, in their order."""
    found = []
    for stage in stages:
        for argument in stage.own:
            if argument.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
                continue
            kind = _kind(argument, is_library=isinstance(stage.function, type))
            found.append(Parameter(stage.role.name, argument.name, kind, argument.default))
    return found


def bind(parameters: list[Parameter], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give each stage its values: those given, converted and checked, and the defaults for the rest.

    Args:
        given: by name, or by `stage.name` where two stages declare the same name.

    Returns:
        stage → name → value, with every declared parameter in it.

    Raises:
        UsageError: a name that no stage takes (with the nearest), one that two stages take, a value of the
            wrong type, a required one that is not given.
    """
    bound: dict[str, dict[str, Any]] = {parameter.stage: {} for parameter in parameters}
    for name, value in given.items():
        parameter = _find(parameters, name)
        bound[parameter.stage][parameter.name] = parameter.convert(value)
    for parameter in parameters:
        if parameter.name in bound[parameter.stage]:
            continue
        if parameter.required:
            raise UsageError(
                f"Parameter '{parameter.name}' of {parameter.stage} has no default and was not given.",
                f"Give it: -p {parameter.name}={_hint(parameter.kind)}.",
            )
        bound[parameter.stage][parameter.name] = parameter.default
    return bound


def flat(bound: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Bound values under the shortest name that is clear: `name`, or `stage.name` where two stages share it."""
    names = [name for values in bound.values() for name in values]
    return {
        (name if names.count(name) == 1 else f"{stage}.{name}"): value
        for stage, values in bound.items()
        for name, value in values.items()
    }


def type_name(kind: Any) -> str:
    """A type as a user reads it: `float`, `int or none`, `one of l1, l2`."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return type_name(typing.get_args(kind)[0])
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(option) for option in typing.get_args(kind))
    if kind is type(None):
        return "none"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return f"one of {', '.join(str(member.value) for member in kind)}"
    if origin is list or kind is list:
        inner = typing.get_args(kind)
        return f"a list of {type_name(inner[0])}" if inner else "a list"
    return getattr(kind, "__name__", str(kind))


def _find(parameters: list[Parameter], name: str) -> Parameter:
    stage, _, short = name.rpartition(".")
    found = [
        parameter
        for parameter in parameters
        if parameter.name == short and (not stage or stage in (parameter.stage, parameter.stage.partition("_")[2]))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = " or ".join(parameter.full_name for parameter in found)
        raise UsageError(f"Parameter '{name}' is declared by {len(found)} stages.", f"Say which one: {names}.")
    known = [parameter.name for parameter in parameters] + [parameter.full_name for parameter in parameters]
    listed = ", ".join(dict.fromkeys(parameter.name for parameter in parameters)) or "none"
    raise UsageError(f"No stage takes a parameter '{name}'.{nearest(name, known)}", f"Known parameters: {listed}.")


def _kind(argument: inspect.Parameter, *, is_library: bool) -> Any:
    if argument.annotation is not inspect.Parameter.empty:
        return argument.annotation
    if argument.default in (inspect.Parameter.empty, None):
        return Any
    # An integer default without an annotation often stands for any number: LogisticRegression(tol=1).
    # A library's class often takes more than a text where its default is one: KMeans(n_init="auto").
    simple = {bool: bool, int: int | float, float: float, str: Any if is_library else str}
    return simple.get(type(argument.default), Any)


def _convert(value: Any, kind: Any) -> Any:
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _convert(value, options[0])
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, options)
    if kind is Any or kind is object:
        return _literal(value) if isinstance(value, str) else value
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 and hasattr(value, "dtype"):
        value = value.item()
    if origin is typing.Literal:
        return (
            next(option for option in options if option == value or str(option) == value)
            if _any(options, value)
            else _fail()
        )
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _convert_enum(value, kind)
    if kind is bool:
        return _convert_bool(value)
    if isinstance(kind, type) and issubclass(kind, Path):
        return kind(value)
    if origin in (list, tuple, set) or kind in (list, tuple, set):
        return _convert_list(value, origin or kind, options)
    if (
        kind in (int, float, str, datetime.date, datetime.datetime, datetime.timedelta)
        or origin is dict
        or kind is dict
    ):
        if isinstance(value, str) and (origin is dict or kind is dict):
            value = msgspec.json.decode(value)
        if kind is datetime.date and isinstance(value, datetime.datetime):
            return value.date()
        return msgspec.convert(value, kind, strict=not isinstance(value, str))
    if isinstance(kind, type) and not isinstance(value, kind):
        return kind(value) if isinstance(value, str) else _fail()
    return value


def _convert_union(value: Any, options: tuple[Any, ...]) -> Any:
    if type(None) in options and (value is None or (isinstance(value, str) and value.lower() in ("none", "null", ""))):
        return None
    for option in sorted((option for option in options if option is not type(None)), key=lambda option: option is str):
        try:
            return _convert(value, option)
        except (ValueError, TypeError, msgspec.ValidationError):
            continue
    return _fail()


def _convert_enum(value: Any, kind: type[enum.Enum]) -> enum.Enum:
    for member in kind:
        if value is member or value == member.value or value in (str(member.value), member.name):
            return member
    return _fail()


def _convert_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = value.lower() if isinstance(value, str) else _fail()
    return text in TRUE if text in TRUE | FALSE else _fail()


def _convert_list(value: Any, origin: Any, options: tuple[Any, ...]) -> Any:
    if isinstance(value, str):
        parts = msgspec.json.decode(value) if value.startswith("[") else [part for part in value.split(",") if part]
    else:
        parts = list(value)
    inner = options[0] if options else Any
    return origin(_convert(part, inner) for part in parts)


def _any(options: tuple[Any, ...], value: Any) -> bool:
    return any(option == value or str(option) == value for option in options)


def _literal(text: str) -> Any:
    """A text for a parameter whose type is not known: a number, true, null or a list where it reads as one."""
    if text.lower() == "none":
        return None
    try:
        return msgspec.json.decode(text.lower() if text in ("True", "False") else text)
    except msgspec.DecodeError:
        return text


def _fail() -> typing.NoReturn:
    raise ValueError


def _hint(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Annotated:
        return _hint(typing.get_args(kind)[0])
    if typing.get_origin(kind) is typing.Literal:
        return str(typing.get_args(kind)[0])
    examples = {int: "10", float: "0.1", bool: "true", str: "text", datetime.date: "2026-01-31", Path: "path"}
    return examples.get(kind, "value") if isinstance(kind, type) else "value"
