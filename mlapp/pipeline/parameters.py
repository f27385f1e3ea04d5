"""The parameters that the stages' signatures declare, and the binding of values to them."""

from __future__ import annotations

import difflib
import enum
import inspect
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlapp.errors import UsageError, suggest_nearest
from mlapp.pipeline.annotations import strip_annotated
from mlapp.pipeline.parameter_values import (
    UnfitValueError,
    convert_parameter_value,
    format_parameter_value_type,
    make_parameter_example,
    to_plain_parameter_value,
)
from mlapp.pipeline.stage import Stage
from mlapp.pipeline.structures import find_structure, is_structure, read_structure_values

REQUIRED = inspect.Parameter.empty


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
    def is_required(self) -> bool:
        return self.default is REQUIRED

    def convert_value(self, value: Any) -> Any:
        """Convert `value` to the parameter's type. Parses texts from a command line.

        Raises:
            UsageError: the value cannot be converted; names the parameter.
        """
        try:
            return convert_parameter_value(value, self.kind)
        except UnfitValueError as error:
            name = ".".join((self.name, *error.path))
            problem = error.problem or f"takes {format_parameter_value_type(error.kind)}, not {error.value!r}."
            raise UsageError(
                f"Parameter '{name}' of {self.stage} {problem}",
                f"Give it as {name}={make_parameter_example(error.kind)}.",
            ) from None


def list_parameters(stages: Iterable[Stage]) -> list[Parameter]:
    """The parameters of these stages, in their order."""
    parameters = []
    for stage in stages:
        for argument in stage.own_parameters:
            if argument.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
                continue
            kind = _find_parameter_kind(argument, is_library=isinstance(stage.function, type))
            parameters.append(Parameter(stage.role.name, argument.name, kind, argument.default))
    return parameters


@dataclass(frozen=True)
class RecordedValue:
    """A value from a manifest, to reuse."""

    value: Any


def list_open_parameter_stages(stages: Iterable[Stage]) -> tuple[str, ...]:
    """The stages that take `**kwargs`: they receive the values that no stage declares."""
    variable = inspect.Parameter.VAR_KEYWORD
    return tuple(
        stage.role.name
        for stage in stages
        if stage.role.parameters and any(argument.kind is variable for argument in stage.own_parameters)
    )


def bind_pipeline_parameters(
    parameters: list[Parameter], values: Mapping[str, Any], open_stages: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Convert, check and bind values to the stages' parameters, with defaults for the rest.

    Args:
        values: by name, or by `stage.name` if two stages declare the same name; `name.field` for a field,
            while the other fields keep their defaults. `{"model": {"C": 1}}` is `{"model.C": 1}`.
        open_stages: the stages that take `**kwargs`, from `list_open_parameter_stages`.

    Returns:
        stage → name → value, with every declared parameter in it.

    Raises:
        UsageError: no stage or more than one stage takes a name (the message suggests the nearest name), a value has
            the wrong type, or a required parameter has no value.
    """
    bound: dict[str, dict[str, Any]] = {parameter.stage: {} for parameter in parameters}
    field_values: dict[tuple[str, str], dict[tuple[str, ...], Any]] = {}
    whole_values: dict[tuple[str, str], Any] = {}
    matched: dict[tuple[str, str], Parameter] = {}
    for name, value in _expand_parameter_mappings(parameters, values).items():
        parameter, path = _find_parameter(parameters, name, open_stages)
        key = (parameter.stage, parameter.name)
        matched[key] = parameter
        if path:
            field_values.setdefault(key, {})[path] = value
        else:
            whole_values[key] = value
    for key, parameter in matched.items():
        value = whole_values.get(key, parameter.default)
        if key in field_values:
            value = _replace_parameter_fields(parameter, value, field_values[key])
        bound.setdefault(parameter.stage, {})[parameter.name] = _convert_pipeline_parameter(parameter, value)
    for parameter in parameters:
        if parameter.name in bound[parameter.stage]:
            continue
        if parameter.is_required:
            raise UsageError(
                f"Parameter '{parameter.name}' of {parameter.stage} has no default and was not given.",
                f"Give it: -p {parameter.name}={make_parameter_example(parameter.kind)}.",
            )
        bound[parameter.stage][parameter.name] = parameter.default
    return bound


def select_pipeline_parameters(
    stage: str, parameters: list[Parameter], values: Mapping[str, Any], open_stages: Sequence[str] = ()
) -> dict[str, Any]:
    """The values for one stage.

    Args:
        parameters: the parameters of all stages.
        values: by name, as for `bind_pipeline_parameters`.
    """
    own = [parameter for parameter in parameters if parameter.stage == stage]
    is_open = stage in open_stages
    return {
        name: value
        for name, value in _expand_parameter_mappings(parameters, values).items()
        if _find_matching_parameters(own, name)
        or (is_open and not _find_matching_parameters(parameters, name) and _get_extra_pipeline_parameter(stage, name))
    }


def bind_stage_parameters(stage: Stage, parameters: list[Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """The converted and checked values of one stage, with its defaults.

    Args:
        parameters: the parameters of all stages. A value that another stage declares is not passed to `**kwargs`.
        values: by name, as for `bind_pipeline_parameters`.

    Raises:
        UsageError: see `bind_pipeline_parameters`.
    """
    is_open = list_open_parameter_stages([stage])
    own = select_pipeline_parameters(stage.role.name, parameters, values, is_open)
    return bind_pipeline_parameters(list_parameters([stage]), own, is_open).get(stage.role.name, {})


def flatten_parameters(
    bound: Mapping[str, Mapping[str, Any]], parameters: Sequence[Parameter] | None = None
) -> dict[str, Any]:
    """Bound values under the shortest unambiguous name: `name`, or `stage.name` if two stages share it.

    Args:
        parameters: the declared parameters. A parameter of `**kwargs` is always `stage.name`.
    """
    names = [name for values in bound.values() for name in values]
    declared_names = None if parameters is None else {(each.stage, each.name) for each in parameters}
    return {
        (
            name
            if names.count(name) == 1 and (declared_names is None or (stage, name) in declared_names)
            else f"{stage}.{name}"
        ): value
        for stage, values in bound.items()
        for name, value in values.items()
    }


def _convert_pipeline_parameter(parameter: Parameter, value: Any) -> Any:
    if not isinstance(value, RecordedValue):
        return parameter.convert_value(value)
    # The text can describe a function or an object. Only the default itself is usable.
    if not parameter.is_required and to_plain_parameter_value(parameter.default) == value.value:
        return parameter.default
    return value.value if parameter.kind is Any else parameter.convert_value(value.value)


def _expand_parameter_mappings(parameters: Sequence[Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with `{"model": {"C": 1}}` expanded to `{"model.C": 1}`."""
    stages = {parameter.stage for parameter in parameters}
    expanded: dict[str, Any] = {}
    for name, value in values.items():
        if name in stages and isinstance(value, Mapping) and not _find_matching_parameters(parameters, name):
            expanded.update({f"{name}.{inner}": item for inner, item in value.items()})
        else:
            expanded[name] = value
    return expanded


def _find_matching_parameters(parameters: Iterable[Parameter], name: str) -> list[tuple[Parameter, tuple[str, ...]]]:
    """The parameters that a name can refer to, each with the path of a field inside it."""
    parts = tuple(name.split("."))
    matches = []
    for parameter in parameters:
        if parts[0] == parameter.name:
            matches.append((parameter, parts[1:]))
        is_of_stage = parts[0] in (parameter.stage, parameter.stage.partition("_")[2])
        if len(parts) > 1 and is_of_stage and parts[1] == parameter.name:
            matches.append((parameter, parts[2:]))
    whole_matches = [(parameter, path) for parameter, path in matches if not path]
    return whole_matches or [(parameter, path) for parameter, path in matches if _has_parameter_fields(parameter)]


def _has_parameter_fields(parameter: Parameter) -> bool:
    kind = strip_annotated(parameter.kind)
    is_mapping = kind is dict or typing.get_origin(kind) in (dict, Mapping) or isinstance(parameter.default, dict)
    return is_mapping or find_structure(kind) is not None


def _get_extra_pipeline_parameter(stage: str, name: str) -> str:
    """The keyword for a stage that takes `**kwargs`; empty if the name refers to another stage."""
    prefix, dot, short = name.rpartition(".")
    return name if not dot else short if prefix in (stage, stage.partition("_")[2]) else ""


def _find_parameter(
    parameters: list[Parameter], name: str, open_stages: Sequence[str] = ()
) -> tuple[Parameter, tuple[str, ...]]:
    matches = _find_matching_parameters(parameters, name)
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = " or ".join(parameter.full_name for parameter, _ in matches)
        raise UsageError(f"Parameter '{name}' is declared by {len(matches)} stages.", f"Name one: {names}.")
    takers = [stage for stage in open_stages if _get_extra_pipeline_parameter(stage, name)]
    similar = difflib.get_close_matches(name, [parameter.name for parameter in parameters], n=1, cutoff=0.8)
    if takers and (not similar or "." in name):
        if len(takers) > 1:
            names = " or ".join(f"{stage}.{name}" for stage in takers)
            raise UsageError(f"{len(takers)} stages accept the parameter '{name}'.", f"Name one: {names}.")
        return Parameter(takers[0], _get_extra_pipeline_parameter(takers[0], name), Any), ()
    candidates = [parameter.name for parameter in parameters] + [parameter.full_name for parameter in parameters]
    name_list = ", ".join(dict.fromkeys(parameter.name for parameter in parameters)) or "none"
    todo = f"Known parameters: {name_list}."
    if takers:
        todo = f"To pass it to **keywords, write {takers[0]}.{name}. {todo}"
    raise UsageError(f"No stage takes a parameter '{name}'.{suggest_nearest(name, candidates)}", todo)


def _replace_parameter_fields(parameter: Parameter, value: Any, parts: Mapping[tuple[str, ...], Any]) -> Any:
    """The parameter's value with some fields replaced, as a mapping that still needs conversion."""
    if isinstance(value, RecordedValue):
        value = value.value
    if value is REQUIRED or value is None:
        value = {}
    fields = read_structure_values(value if not isinstance(value, str) else parameter.convert_value(value))
    for path, item in parts.items():
        inner = fields
        for name in path[:-1]:
            member = inner.get(name)
            if member is not None and not isinstance(member, Mapping) and not is_structure(member):
                raise UsageError(
                    f"Parameter '{parameter.name}.{name}' of {parameter.stage} has no fields.",
                    f"Give it as {parameter.name}.{name}=value.",
                )
            inner[name] = {} if member is None else read_structure_values(member)
            inner = inner[name]
        inner[path[-1]] = item
    return fields


def _find_parameter_kind(argument: inspect.Parameter, *, is_library: bool) -> Any:
    if argument.annotation is not inspect.Parameter.empty:
        return argument.annotation
    if argument.default is inspect.Parameter.empty or argument.default is None:
        return Any
    # An integer default without an annotation often means any number: LogisticRegression(tol=1).
    # A library's class often takes more than texts if the default is a text: KMeans(n_init="auto").
    if isinstance(argument.default, enum.Enum) or is_structure(argument.default):
        return type(argument.default)
    simple = {bool: bool, int: int | float, float: float, str: Any if is_library else str}
    return simple.get(type(argument.default), Any)
