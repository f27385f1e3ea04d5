"""A stage: a function of the user in the role that a decorator assigns."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mlapp.errors import DeclarationError
from mlapp.pipeline.stage_options import NO_OPTIONS, DefaultOptions, TaskOptions

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Role:
    """The role of a stage in the pipeline.

    Attributes:
        receives: names of the leading arguments, which mlapp passes.
        parameters: whether further arguments are parameters of the pipeline. Stages that also run in serving have
            none, because a request cannot set them.
        defaults: defaults of known parameters, for functions that declare them without one.
    """

    name: str
    receives: tuple[str, ...]
    parameters: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)


ROLES = {
    role.name: role
    for role in (
        Role("data_reader", ()),
        Role("data_loader", ("data",)),
        Role("data_splitter", ("data",), defaults={"test_size": 0.2, "shuffle": True, "random_state": 0}),
        Role("data_parser", ("data",)),
        Role("feature_transformer", ("features",), parameters=False),
        Role("model", ()),
        Role("trainer", ("model", "features", "target")),
        Role("evaluator", ("model", "features", "target")),
        Role("saver", ("model", "path"), parameters=False),
        Role("loader", ("path",), parameters=False),
        Role("feature_loader", ("inputs",), parameters=False),
        Role("predictor", ("model", "features"), parameters=False),
        Role("on_predict", ("model", "features", "predictions"), parameters=False),
        Role("truth_reader", ()),
        Role("on_alarm", ("alarm",), parameters=False),
    )
}


@dataclass(frozen=True)
class Stage:
    """A function in its role.

    Attributes:
        data_arguments: number of leading arguments, which mlapp passes; the rest are parameters.
        options: the options of its decorator.
    """

    role: Role
    function: Callable[..., Any]
    data_arguments: int
    options: TaskOptions = NO_OPTIONS

    def __call__(self, *data: Any, **parameters: Any) -> Any:
        """Call the function with the leading arguments that it takes."""
        return self.function(*data[: self.data_arguments], **parameters)

    @property
    def title(self) -> str:
        """The stage's name in messages: `trainer 'fit' in app.py:12`, or `the default trainer of sklearn for model
        'build' in app.py:8`.
        """
        if isinstance(self.options, DefaultOptions):
            default = f"the default {self.role.name} of {self.options.framework}"
            return f"{default} for {self.options.model}" if self.options.model else default
        return describe_stage_function(self.role.name, self.function)

    @property
    def is_framework_default(self) -> bool:
        """Whether it is the framework's function and not the user's."""
        return isinstance(self.options, DefaultOptions)

    @cached_property
    def signature(self) -> inspect.Signature:
        """The function's signature, with annotations resolved where possible."""
        return resolve_stage_signature(self.function)

    @property
    def own_parameters(self) -> list[inspect.Parameter]:
        """The function's arguments after those of its role, with the role's defaults."""
        own, defaults = list(self.signature.parameters.values())[self.data_arguments :], self.role.defaults
        return [
            argument.replace(default=defaults[argument.name])
            if argument.name in defaults and argument.default is inspect.Parameter.empty
            else argument
            for argument in own
        ]


def make_stage(
    role: Role, function: Callable[..., Any], *, has_target: bool, options: TaskOptions = NO_OPTIONS
) -> Stage:
    """Check a function's signature against its role.

    Raises:
        DeclarationError: it is not callable, or does not take its role's arguments.
    """
    if not callable(function):
        raise DeclarationError(
            f"@app.{role.name} marks {function!r}, which is not a function.", f"Put @app.{role.name} above a function."
        )
    arguments = list(_read_stage_signature(function).parameters.values())
    leading = [argument for argument in arguments if argument.kind in POSITIONAL]
    takes_any = any(argument.kind is inspect.Parameter.VAR_POSITIONAL for argument in arguments)
    expected = role.receives
    if "target" in expected and not has_target and not _stage_takes_target(leading, expected):
        expected = tuple(name for name in expected if name != "target")
    if len(leading) < len(expected) and not takes_any:
        raise _stage_signature_error(role, function, expected, arguments)
    data_arguments = min(len(expected), len(leading)) if not takes_any else len(expected)
    rest = [
        argument
        for argument in arguments[min(data_arguments, len(leading)) :]
        if argument.kind is not inspect.Parameter.VAR_POSITIONAL
    ]
    positional_only = [argument for argument in rest if _is_required_stage_argument(argument)]
    if positional_only or (
        rest and not role.parameters and any(_is_named_stage_argument(argument) for argument in rest)
    ):
        raise _stage_signature_error(role, function, expected, arguments)
    return Stage(role, function, data_arguments, options)


def describe_stage_function(role: str, function: Callable[..., Any]) -> str:
    """`role 'name' in file:line`, without the location if it is unknown; `data_reader.sql` for a data source."""
    source = getattr(function, "source", None)
    if isinstance(source, str):
        return f"{role}.{source}"
    bare = inspect.unwrap(getattr(function, "__func__", function))
    name = getattr(function, "__name__", type(function).__name__)
    code = getattr(bare, "__code__", None)
    where = f" in {Path(code.co_filename).name}:{code.co_firstlineno}" if code else ""
    return f"{role} '{name}'{where}"


def resolve_stage_signature(function: Callable[..., Any]) -> inspect.Signature:
    """The signature with annotations resolved to types; an annotation that cannot be resolved is dropped.

    Each annotation is resolved separately, because some can name types that only a type checker imports.
    """
    signature = _read_stage_signature(function)
    scope = _make_stage_annotation_scope(function)
    arguments = [
        argument.replace(annotation=_resolve_stage_annotation(argument.annotation, scope))
        for argument in signature.parameters.values()
    ]
    return signature.replace(
        parameters=arguments, return_annotation=_resolve_stage_annotation(signature.return_annotation, scope)
    )


def _resolve_stage_annotation(annotation: Any, scope: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return typing.get_type_hints(
            type("Holder", (), {"__annotations__": {"it": annotation}}), scope, include_extras=True
        )["it"]
    except Exception:  # any error of the user's annotation; the annotation counts as missing
        return inspect.Parameter.empty


def _make_stage_annotation_scope(function: Callable[..., Any]) -> dict[str, Any]:
    bare = inspect.unwrap(getattr(function, "__func__", function))
    if isinstance(bare, type):
        bare = bare.__init__  # type: ignore[misc]
    scope = dict(getattr(bare, "__globals__", {}))
    code, cells = getattr(bare, "__code__", None), getattr(bare, "__closure__", None)
    if code is not None and cells:
        for name, cell in zip(code.co_freevars, cells, strict=True):
            try:
                scope[name] = cell.cell_contents
            except ValueError:  # not yet assigned
                continue
    return scope


def _read_stage_signature(function: Callable[..., Any]) -> inspect.Signature:
    """The signature. If the `__init__` of a class takes `**kwargs`, the parameters of its bases are added."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return inspect.Signature()
    if not isinstance(function, type):
        return signature
    arguments: dict[str, inspect.Parameter] = dict(signature.parameters)
    if any(argument.kind is inspect.Parameter.VAR_KEYWORD for argument in arguments.values()):
        for base in function.__mro__[1:]:
            if "__init__" in vars(base) and base is not object:
                for argument in list(inspect.signature(base.__init__).parameters.values())[1:]:  # type: ignore[misc]
                    if _is_named_stage_argument(argument):
                        arguments.setdefault(argument.name, argument.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    order = sorted(arguments.values(), key=lambda argument: argument.kind)
    return inspect.Signature(order)


def _is_named_stage_argument(argument: inspect.Parameter) -> bool:
    return argument.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _is_required_stage_argument(argument: inspect.Parameter) -> bool:
    return argument.kind is inspect.Parameter.POSITIONAL_ONLY and argument.default is inspect.Parameter.empty


def _stage_takes_target(leading: list[inspect.Parameter], expected: tuple[str, ...]) -> bool:
    """Whether a function requires a target although the app declares none, as a parser can return one."""
    return len(leading) >= len(expected) and leading[len(expected) - 1].default is inspect.Parameter.empty


def _stage_signature_error(
    role: Role, function: Callable[..., Any], expected: tuple[str, ...], arguments: list[inspect.Parameter]
) -> DeclarationError:
    actual_list = ", ".join(str(argument).split(":")[0].split("=")[0].strip() for argument in arguments)
    expected_list = ", ".join((*expected, "…its parameters") if role.parameters else expected)
    return DeclarationError(
        f"{describe_stage_function(role.name, function)} takes ({actual_list}).",
        f"Change its parameters to ({expected_list}), in this order.",
    )
