"""Options that select a command's target, and opening that target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlapp.cli.target_flags import read_target_flags
from mlapp.errors import UsageError

if TYPE_CHECKING:
    from mlapp.deploy import CanaryTarget, Target
    from mlapp.project import Project

TargetName = Annotated[
    str | None, typer.Option("--target", "-t", help="docker, k8s, …. By default the only target in mlapp.yaml.")
]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Kubernetes namespace.")]
Context = Annotated[str | None, typer.Option("--context", help="Context in the kubeconfig.")]


def open_command_target(
    project: Project, name: str | None, namespace: str | None = None, context: str | None = None
) -> Target[Any]:
    """The target of a command.

    Raises:
        UsageError: no target is named, and mlapp.yaml has none or several.
    """
    from mlapp.deploy import CodeTarget, open_target

    configured = list(project.settings.targets)
    if name is None and len(configured) != 1:
        found = f"mlapp.yaml has several: {', '.join(configured)}." if configured else "mlapp.yaml has none."
        raise UsageError(f"Which target? {found}", "Name it: --target k8s, or --target docker.")
    flags = {"namespace": namespace, "context": context, **read_target_flags()}
    given = {key: value for key, value in flags.items() if value is not None}
    target = open_target(name or configured[0], project.name, project.settings, given)
    if isinstance(target, CodeTarget):
        target.project = project
    return target


def open_canary_target(
    environment: str | None, name: str | None, namespace: str | None, context: str | None
) -> CanaryTarget:
    """The target of a canary command.

    Raises:
        UsageError: the target does not support canaries.
    """
    from mlapp.deploy import CanaryTarget
    from mlapp.project import Project

    place = open_command_target(Project.find(environment=environment), name, namespace, context)
    if not isinstance(place, CanaryTarget):
        raise UsageError(f"The target {place.name} does not support canaries.", "Deploy without one.")
    return place
