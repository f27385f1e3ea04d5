"""Options of commands with a target: those that select it, and the flags that it declares (`Target.flags_type`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec
import typer
from typer.core import TyperCommand, TyperOption

from mlapp.errors import MlappError, UsageError

if TYPE_CHECKING:
    from mlapp.deploy import CanaryTarget, Target
    from mlapp.project import Project

TargetName = Annotated[
    str | None, typer.Option("--target", "-t", help="docker, k8s, …. By default the only target in mlapp.yaml.")
]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Kubernetes namespace.")]
Context = Annotated[str | None, typer.Option("--context", help="Context in the kubeconfig.")]
PARAMETERS_KEY = "mlapp.target_parameters"
"""Key in click's context of the options that the target declares."""
_flags: ContextVar[dict[str, Any]] = ContextVar("target_flags")
"""Flags of the running command. They are not in click's context, because typer bundles its own click since 0.20."""


def open_target_from_options(
    project: Project, name: str | None, namespace: str | None = None, context: str | None = None
) -> Target[Any]:
    """The target of a command.

    Raises:
        UsageError: no target is named and mlapp.yaml has none or several, or the target does not support an option.
    """
    from mlapp.deploy import CodeTarget, find_target_class, open_target

    configured = list(project.settings.targets)
    if name is None and len(configured) != 1:
        configured_text = f"mlapp.yaml has several: {', '.join(configured)}." if configured else "mlapp.yaml has none."
        raise UsageError(f"No target is given. {configured_text}", "Name it: --target k8s, or --target docker.")
    name = name or configured[0]
    cluster_options = {
        key: value for key, value in (("namespace", namespace), ("context", context)) if value is not None
    }
    refuse_unsupported_options(find_target_class(name), [f"--{key}" for key in cluster_options])
    target = open_target(name, project.name, project.settings, {**cluster_options, **read_target_flags()})
    if isinstance(target, CodeTarget):
        target.project = project
    return target


def refuse_unsupported_options(target_type: type[Target[Any]], options: Iterable[str]) -> None:
    """Check the options of a command against its target.

    Args:
        target_type: the class of the target.
        options: the options on the command line that not every target supports, such as `--image`.

    Raises:
        UsageError: an option has no meaning for the target.
    """
    from mlapp.config.section import list_section_fields

    settings = list_section_fields(target_type.settings_type)
    unsupported = target_type.unsupported_options | {
        f"--{key}" for key in ("namespace", "context") if key not in settings
    }
    for option in options:
        if option in unsupported:
            raise UsageError(f"The target {target_type.name} does not support {option}.", f"Leave {option} out.")


def open_canary_target(
    environment: str | None, name: str | None, namespace: str | None, context: str | None
) -> CanaryTarget:
    """The target of a canary command.

    Raises:
        UsageError: the target does not support canaries.
    """
    from mlapp.deploy import CanaryTarget
    from mlapp.project import Project

    target = open_target_from_options(Project.find(environment=environment), name, namespace, context)
    if not isinstance(target, CanaryTarget):
        raise UsageError(f"The target {target.name} does not support canaries.", "Deploy without one.")
    return target


class TargetCommand(TyperCommand):
    """A command with `--target`. It accepts the flags of the named target, or of the only target in mlapp.yaml."""

    target: ClassVar[str | None] = None
    """The target of a command that supports only one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _flags.set({})
        name = self.target or _find_flag_target(args) or _find_only_flag_target()
        if name is not None:
            own_names = {parameter.name for parameter in self.params}
            ctx.meta[PARAMETERS_KEY] = [option for option in _make_flag_options(name) if option.name not in own_names]
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        return [*super().get_params(ctx), *ctx.meta.get(PARAMETERS_KEY, ())]


def read_target_flags() -> dict[str, Any]:
    """The target flags of the running command, by setting name."""
    return dict(_flags.get({}))


def _find_flag_target(args: list[str]) -> str | None:
    for index, argument in enumerate(args):
        if argument in ("--target", "-t"):
            return args[index + 1] if index + 1 < len(args) else None
        if argument.startswith("--target="):
            return argument.partition("=")[2]
    return None


def _find_only_flag_target() -> str | None:
    from mlapp.project import Project

    try:
        targets = list(Project.find().settings.targets)
    except MlappError:  # the command itself reports the error
        return None
    return targets[0] if len(targets) == 1 else None


def _make_flag_options(name: str) -> Iterator[TyperOption]:
    """One option per field of the target's flags. None if the target cannot be loaded: the command reports that."""
    from mlapp.deploy.target import find_target_class

    try:
        flags = find_target_class(name).flags_type
    except MlappError:
        return
    kind = msgspec.inspect.type_info(flags)
    assert isinstance(kind, msgspec.inspect.StructType)
    for field in kind.fields:
        types = _list_flag_types(field.type)
        is_list = any(isinstance(one, (msgspec.inspect.ListType, msgspec.inspect.VarTupleType)) for one in types)
        is_flag = any(isinstance(one, msgspec.inspect.BoolType) for one in types)
        flag = "--" + field.encode_name.replace("_", "-")
        yield TyperOption(
            param_decls=[field.encode_name, f"{flag}/--no-{flag[2:]}" if is_flag else flag],
            help=_find_flag_description(field.type) or f"targets.{name}.{field.encode_name}.",
            is_flag=is_flag or None,
            multiple=is_list,
            default=None,
            expose_value=False,
            callback=_store_flag,
        )


def _store_flag(context: Any, parameter: Any, value: Any) -> Any:
    if value is not None and value != ():
        _flags.get()[parameter.name] = list(value) if isinstance(value, tuple) else value
    return value


def _list_flag_types(kind: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    """The types of a union, without their metadata."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return _list_flag_types(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return [one for part in kind.types for one in _list_flag_types(part)]
    return [kind]


def _find_flag_description(kind: msgspec.inspect.Type) -> str | None:
    if isinstance(kind, msgspec.inspect.Metadata):
        description = (kind.extra_json_schema or {}).get("description")
        return description or _find_flag_description(kind.type)
    return None
