"""A pipeline's parameters as inputs of Flyte's tasks and workflows."""

from __future__ import annotations

import datetime
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from mlapp.errors import UsageError
from mlapp.pipeline import bind_pipeline_parameters
from mlapp.pipeline.annotations import find_optional_type, list_union_types, strip_annotated
from mlapp.pipeline.parameter_values import format_parameter_value_type, to_plain_parameter_value
from mlapp.pipeline.parameters import REQUIRED, Parameter
from mlapp.pipeline.structures import find_structure, is_structure
from mlapp.schema.json_values import to_json_value

RESERVED_NAMES = frozenset(
    {"table", "splits", "trained", "metrics", "model", "predictions", "promote_if", "trials", "tuning", "model_version"}
)
"""Reserved names of values between tasks; a parameter with such a name uses its full name."""
NATIVE_TYPES = (bool, int, float, str, datetime.datetime, datetime.timedelta)
"""Flyte's native types. Other values are passed as the text that `mlapp train -p` accepts."""
TEXT_MODULES = ("datetime", "pathlib", "decimal", "uuid")
"""Modules of types whose text form describes a value completely."""
NO_TIME = datetime.datetime(1, 1, 1, tzinfo=datetime.timezone.utc)
"""Stands for None if Flyte requires a time: a schedule cannot fill an optional input."""
DEFAULT = "default"
"""Stands for a default that has no text form, such as a function or an object."""


@dataclass(frozen=True)
class Input:
    """One parameter as a Flyte input.

    Args:
        name: the name in Flyte's interface: the parameter's own, or `stage__name` if that is ambiguous; in lower case,
            because `pyflyte run` accepts no other.
        kind: the type in Flyte's interface.
    """

    parameter: Parameter
    name: str
    kind: Any

    @property
    def default(self) -> Any:
        """The default in the interface; `REQUIRED` without one."""
        default = self.parameter.default
        return default if default is REQUIRED else self._encode_input_value(default)

    def encode_value(self, value: Any) -> Any:
        """Encode a user's value for Flyte.

        Raises:
            UsageError: the value is not of the parameter's type, or Flyte cannot represent it.
        """
        typed_value = self.parameter.convert_value(value)
        encoded = self._encode_input_value(typed_value)
        if self.kind is str and to_json_value(self.parameter.convert_value(encoded)) != to_json_value(typed_value):
            raise UsageError(
                f"Parameter '{self.parameter.name}' of {self.parameter.stage}: Flyte cannot pass {typed_value!r:.60}.",
                "Give a number, a string, a date, or a list or dict of them, and build other objects in the function.",
            )
        return encoded

    def decode_value(self, value: Any) -> Any:
        """The value that the stage's function receives."""
        default = self.parameter.default
        if value == NO_TIME:
            return None
        if isinstance(value, datetime.datetime) and isinstance(default, datetime.datetime) and default.tzinfo is None:
            value = value.replace(tzinfo=None)  # Flyte's times are timezone-aware, in UTC
        # An unchanged default is passed directly: its text may represent a tuple, a class or a function.
        if default is not REQUIRED and value == self._encode_input_value(default):
            return default
        return self.parameter.convert_value(value)

    def _encode_input_value(self, value: Any) -> Any:
        if self.kind is datetime.datetime and value is None:
            return NO_TIME
        if self.kind is not str or self.parameter.kind is str:
            return value
        if isinstance(value, str):
            return value if self._can_parse_input_text(value, value) else msgspec.json.encode(value).decode()
        if hasattr(value, "value") and hasattr(value, "name"):  # an Enum's member
            value = value.value
        text = "null" if value is None else value if isinstance(value, str) else _format_input_value(value)
        return text if text is not None and self._can_parse_input_text(text, value) else DEFAULT

    def _can_parse_input_text(self, text: str, value: Any) -> bool:
        try:
            parsed = self.parameter.convert_value(text)
        except UsageError:
            return False
        return bool(to_json_value(getattr(parsed, "value", parsed)) == to_json_value(value))


def make_inputs(parameters: Sequence[Parameter], times: Collection[str] = ()) -> list[Input]:
    """The inputs of a workflow with these parameters.

    Args:
        times: the parameters that schedules set to the time of a run.

    Raises:
        UsageError: a parameter without a default has a type that Flyte cannot represent; the message names it.
    """
    names = [parameter.name.lower() for parameter in parameters]
    taken_names = set(RESERVED_NAMES)
    inputs = []
    for parameter, short_name in zip(parameters, names, strict=True):
        full_name = f"{parameter.stage}__{parameter.name}"
        is_clear = names.count(short_name) == 1
        name = next(
            name
            for name in (short_name, full_name.lower(), full_name)
            if name not in taken_names and (is_clear or name != short_name)
        )
        taken_names.add(name)
        kind = find_input_type(parameter.kind)
        if kind is None:
            if parameter.is_required and not _has_input_text_form(parameter.kind):
                raise UsageError(
                    f"Parameter '{parameter.name}' of {parameter.stage} is a "
                    f"{format_parameter_value_type(parameter.kind)}, which Flyte cannot pass between tasks.",
                    "Change its type to a number, a string, a date, or a list or dict of these; or give it a default.",
                )
            kind = str
        if parameter.default is None and kind is not str:
            kind = kind | None
        is_time = not {name, parameter.name}.isdisjoint(times)
        if is_time and kind == datetime.datetime | None:
            kind = datetime.datetime
        elif not is_time and kind in (datetime.datetime, datetime.datetime | None):
            kind = str  # Flyte's datetime is always in UTC: a naive one would return aware
        inputs.append(Input(parameter, name, kind))
    return inputs


def encode_inputs(inputs: Sequence[Input], values: Mapping[str, Any]) -> dict[str, Any]:
    """Encode the values of parameters, by name or full name, and the defaults of the others, by input name.

    Raises:
        UsageError: a parameter is unknown, missing, or of the wrong type.
    """
    values_by_stage = bind_pipeline_parameters([input.parameter for input in inputs], values)
    return {
        input.name: input.encode_value(values_by_stage[input.parameter.stage][input.parameter.name]) for input in inputs
    }


def decode_inputs_by_stage(inputs: Sequence[Input], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The arguments of the stages' functions from a task's inputs, by stage and name."""
    values_by_stage: dict[str, dict[str, Any]] = {}
    for input in inputs:
        values_by_stage.setdefault(input.parameter.stage, {})[input.parameter.name] = input.decode_value(
            values[input.name]
        )
    return values_by_stage


def find_input_type(kind: Any) -> Any:
    """Flyte's native type for values of `kind`, or None: `int`, `float | None`, `list[str]`, …"""
    kind = strip_annotated(kind)
    if kind in NATIVE_TYPES:
        return kind
    if (optional := find_optional_type(kind)) is not None:
        inner = find_input_type(optional)
        return None if inner is None else inner | None
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is list and options and options[0] in NATIVE_TYPES:
        return kind
    if origin is dict and options and options[0] is str and options[1] in NATIVE_TYPES:
        return kind
    return None


def _has_input_text_form(kind: Any) -> bool:
    """Whether `Parameter.convert_value` can parse a value of this type from text."""
    kind = strip_annotated(kind)
    if union := list_union_types(kind):
        return all(option is type(None) or find_input_type(option) or _has_input_text_form(option) for option in union)
    origin = typing.get_origin(kind)
    if kind is Any or kind is object or origin in (typing.Literal, list, tuple, set, dict):
        return True
    if find_structure(kind) is not None:
        return True
    plain_types = ("enum", "pathlib", "datetime", "builtins", "decimal", "uuid")
    return isinstance(kind, type) and any(base.__module__ in plain_types for base in kind.__mro__[:-1])


def _format_input_value(value: Any) -> str | None:
    try:
        if is_structure(value):
            return msgspec.json.encode(to_plain_parameter_value(value)).decode()
        if isinstance(value, (bool, int, float, list, tuple, dict)):
            return msgspec.json.encode(value, enc_hook=_format_flyte_input).decode()
        return _format_flyte_input(value)
    except (TypeError, NotImplementedError, msgspec.MsgspecError):
        return None


def _format_flyte_input(value: Any) -> str:
    if type(value).__module__.partition(".")[0] not in TEXT_MODULES:
        raise NotImplementedError
    return str(value)
