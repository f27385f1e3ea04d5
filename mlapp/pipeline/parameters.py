"""Parameters: what the stages' signatures declare, and how given values reach them."""

from __future__ import annotations

import difflib
import enum
import inspect
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlapp.errors import UsageError, suggest_nearest
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
        """`value` as the parameter's type. Parses texts from a command line.

        Raises:
            UsageError: it is not of that type; names the parameter.
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
    found = []
    for stage in stages:
        for argument in stage.own_parameters:
            if argument.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
                continue
            kind = _find_parameter_kind(argument, is_library=isinstance(stage.function, type))
            found.append(Parameter(stage.role.name, argument.name, kind, argument.default))
    return found


@dataclass(frozen=True)
class Recorded:
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
    parameters: list[Parameter], given: Mapping[str, Any], open_stages: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Bind the given values, converted and checked, to the stages, with defaults for the rest.

    Args:
        given: by name, or by `stage.name` if two stages declare the same name; `name.field` for a field,
            while the other fields keep their defaults. `{"model": {"C": 1}}` is `{"model.C": 1}`.
        open_stages: the stages that take `**kwargs`, from `list_open_parameter_stages`.

    Returns:
        stage → name → value, with every declared parameter in it.

    Raises:
        UsageError: a name that no stage takes (with the nearest), one that two stages take, a value of the
            wrong type, a required one that is not given.
    """
    bound: dict[str, dict[str, Any]] = {parameter.stage: {} for parameter in parameters}
    parts: dict[tuple[str, str], dict[tuple[str, ...], Any]] = {}
    wholes: dict[tuple[str, str], Any] = {}
    known: dict[tuple[str, str], Parameter] = {}
    for name, value in _expand_parameter_mappings(parameters, given).items():
        parameter, path = _find_parameter(parameters, name, open_stages)
        key = (parameter.stage, parameter.name)
        known[key] = parameter
        if path:
            parts.setdefault(key, {})[path] = value
        else:
            wholes[key] = value
    for key, parameter in known.items():
        value = wholes.get(key, parameter.default)
        if key in parts:
            value = _replace_parameter_fields(parameter, value, parts[key])
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
    stage: str, parameters: list[Parameter], given: Mapping[str, Any], open_stages: Sequence[str] = ()
) -> dict[str, Any]:
    """The given values that a stage takes.

    Args:
        parameters: of all stages.
    """
    own = [parameter for parameter in parameters if parameter.stage == stage]
    is_open = stage in open_stages
    return {
        name: value
        for name, value in _expand_parameter_mappings(parameters, given).items()
        if _find_matching_parameters(own, name)
        or (is_open and not _find_matching_parameters(parameters, name) and _get_extra_pipeline_parameter(stage, name))
    }


def bind_stage_parameters(stage: Stage, parameters: list[Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """One stage's values: the given ones that it takes, converted and checked, and its defaults.

    Args:
        parameters: of all stages. A value that another stage declares is not passed to `**kwargs`.

    Raises:
        UsageError: as `bind_pipeline_parameters`.
    """
    is_open = list_open_parameter_stages([stage])
    own = select_pipeline_parameters(stage.role.name, parameters, given, is_open)
    return bind_pipeline_parameters(list_parameters([stage]), own, is_open).get(stage.role.name, {})


def flatten_parameters(
    bound: Mapping[str, Mapping[str, Any]], parameters: Sequence[Parameter] | None = None
) -> dict[str, Any]:
    """Bound values under the shortest unambiguous name: `name`, or `stage.name` if two stages share it.

    Args:
        parameters: the declared ones. A parameter of `**kwargs` is always `stage.name`.
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
    if not isinstance(value, Recorded):
        return parameter.convert_value(value)
    # The text can describe a function or an object. Only the default itself is usable.
    if not parameter.is_required and to_plain_parameter_value(parameter.default) == value.value:
        return parameter.default
    return value.value if parameter.kind is Any else parameter.convert_value(value.value)


def _expand_parameter_mappings(parameters: Sequence[Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values, with a mapping under a stage's name expanded."""
    stages = {parameter.stage for parameter in parameters}
    named: dict[str, Any] = {}
    for name, value in given.items():
        if name in stages and isinstance(value, Mapping) and not _find_matching_parameters(parameters, name):
            named.update({f"{name}.{inner}": item for inner, item in value.items()})
        else:
            named[name] = value
    return named


def _find_matching_parameters(parameters: Iterable[Parameter], name: str) -> list[tuple[Parameter, tuple[str, ...]]]:
    """The parameters that a name can mean, each with the path of the field within it."""
    parts = tuple(name.split("."))
    found = []
    for parameter in parameters:
        if parts[0] == parameter.name:
            found.append((parameter, parts[1:]))
        is_of_stage = parts[0] in (parameter.stage, parameter.stage.partition("_")[2])
        if len(parts) > 1 and is_of_stage and parts[1] == parameter.name:
            found.append((parameter, parts[2:]))
    whole = [(parameter, path) for parameter, path in found if not path]
    return whole or [(parameter, path) for parameter, path in found if _has_parameter_fields(parameter)]


def _has_parameter_fields(parameter: Parameter) -> bool:
    kind = (
        typing.get_args(parameter.kind)[0] if typing.get_origin(parameter.kind) is typing.Annotated else parameter.kind
    )
    is_mapping = kind is dict or typing.get_origin(kind) in (dict, Mapping) or isinstance(parameter.default, dict)
    return is_mapping or find_structure(kind) is not None


def _get_extra_pipeline_parameter(stage: str, name: str) -> str:
    """The keyword of a value for a stage with `**kwargs`; empty if the name means another stage."""
    prefix, dot, short = name.rpartition(".")
    return name if not dot else short if prefix in (stage, stage.partition("_")[2]) else ""


def _find_parameter(
    parameters: list[Parameter], name: str, open_stages: Sequence[str] = ()
) -> tuple[Parameter, tuple[str, ...]]:
    found = _find_matching_parameters(parameters, name)
    if len(found) == 1:
        return found[0]
    if found:
        names = " or ".join(parameter.full_name for parameter, _ in found)
        raise UsageError(f"Parameter '{name}' is declared by {len(found)} stages.", f"Name one: {names}.")
    takers = [stage for stage in open_stages if _get_extra_pipeline_parameter(stage, name)]
    close = difflib.get_close_matches(name, [parameter.name for parameter in parameters], n=1, cutoff=0.8)
    if takers and (not close or "." in name):
        if len(takers) > 1:
            names = " or ".join(f"{stage}.{name}" for stage in takers)
            raise UsageError(f"{len(takers)} stages accept the parameter '{name}'.", f"Name one: {names}.")
        return Parameter(takers[0], _get_extra_pipeline_parameter(takers[0], name), Any), ()
    known = [parameter.name for parameter in parameters] + [parameter.full_name for parameter in parameters]
    listed = ", ".join(dict.fromkeys(parameter.name for parameter in parameters)) or "none"
    todo = f"Known parameters: {listed}."
    if takers:
        todo = f"To pass it to **keywords, write {takers[0]}.{name}. {todo}"
    raise UsageError(f"No stage takes a parameter '{name}'.{suggest_nearest(name, known)}", todo)


def _replace_parameter_fields(parameter: Parameter, value: Any, parts: Mapping[tuple[str, ...], Any]) -> Any:
    """The value with some fields replaced, as a mapping that is not converted yet."""
    if isinstance(value, Recorded):
        value = value.value
    if value is REQUIRED or value is None:
        value = {}
    fields = read_structure_values(value if not isinstance(value, str) else parameter.convert_value(value))
    for path, item in parts.items():
        inner = fields
        for name in path[:-1]:
            below = inner.get(name)
            if below is not None and not isinstance(below, Mapping) and not is_structure(below):
                raise UsageError(
                    f"Parameter '{parameter.name}.{name}' of {parameter.stage} has no fields.",
                    f"Give it as {parameter.name}.{name}=value.",
                )
            inner[name] = {} if below is None else read_structure_values(below)
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
