"""Checks of a stage's function beyond its signature: its kind, and the types of its defaults."""

from __future__ import annotations

import inspect
import typing
from typing import Any

from mlapp.errors import DeclarationError
from mlapp.pipeline.annotations import list_union_types
from mlapp.pipeline.parameter_values import UnfitValueError, convert_parameter_value, format_parameter_value_type
from mlapp.pipeline.stage import Stage

NUMBERS = (bool, int, float)
PLAIN_TYPES = (*NUMBERS, str, type(None))
RESULT_ROLES = ("model", "trainer", "evaluator", "saver", "loader", "on_predict", "on_alarm")
"""The roles whose function returns its result at once. A reader and a predictor can yield it in parts."""


def check_stage_function(stage: Stage) -> None:
    """Check that mlapp can call the function, and that its defaults have the types of their annotations.

    Raises:
        DeclarationError: it is async or a generator in a role that cannot be, a method without its object, or a default
            has another type. The message names the function and its line.
    """
    function = inspect.unwrap(stage.function)
    if not inspect.isroutine(function) or stage.is_framework_default:
        return
    if stage.role.name != "predictor" and (
        inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    ):
        raise DeclarationError(
            f"{stage.title} is async, but only a predictor can be.", "Write `def` instead of `async def`."
        )
    if stage.role.name in RESULT_ROLES and inspect.isgeneratorfunction(function):
        raise DeclarationError(f"{stage.title} yields its result.", "Return the result instead.")
    if next(iter(stage.signature.parameters), "") == "self":
        raise DeclarationError(
            f"{stage.title} is a method, and has no object.",
            f"Pass the method of an object, such as app.{stage.role.name}(MyClass().{function.__name__}).",
        )
    for argument in stage.own_parameters:
        if argument.default is not inspect.Parameter.empty and _has_wrong_default(
            argument.default, argument.annotation
        ):
            kind = format_parameter_value_type(argument.annotation)
            raise DeclarationError(
                f"{stage.title}: the default of {argument.name} is {argument.default!r}, but its annotation is {kind}.",
                f"Give {argument.name} a default of this type, or change its annotation.",
            )


def _has_wrong_default(default: Any, kind: Any) -> bool:
    """Whether a default does not have its annotated type. None and any number for a number are common, and right."""
    if default is None or not _is_plain_type(kind):
        return False
    options = list_union_types(kind) or (kind,)
    if isinstance(default, NUMBERS):
        return not any(option in NUMBERS for option in options) and not _can_convert(default, kind)
    if isinstance(default, str) and all(option in (*NUMBERS, type(None)) for option in options):
        return True
    return not _can_convert(default, kind)


def _can_convert(value: Any, kind: Any) -> bool:
    try:
        convert_parameter_value(value, kind)
    except UnfitValueError:
        return False
    return True


def _is_plain_type(kind: Any) -> bool:
    """Whether the type consists of numbers, texts and choices, which a default can be compared with."""
    if typing.get_origin(kind) is typing.Literal:
        return True
    if list_union_types(kind) or typing.get_origin(kind) is list:
        return all(map(_is_plain_type, typing.get_args(kind)))
    return kind in PLAIN_TYPES
