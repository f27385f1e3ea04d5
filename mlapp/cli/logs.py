"""`mlapp logs`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment
from mlapp.cli.target_options import Context, Namespace, TargetName, open_target_from_options
from mlapp.errors import UsageError

if TYPE_CHECKING:
    from mlapp.deploy import Target


def print_logs(
    target: TargetName = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Number of last lines of each replica to print.")] = None,
    since: Annotated[float | None, typer.Option(min=0, help="Print only lines at most this many seconds old.")] = None,
    namespace: Namespace = None,
    context: Context = None,
    environment: Environment = None,
) -> None:
    """Print the logs of the replicas.

    Each line starts with the name of its replica.

    Example:

      mlapp logs --target k8s -f --tail 10
    """
    from mlapp.deploy import LogTarget
    from mlapp.project import Project

    deploy_target = open_target_from_options(Project.find(environment=environment), target, namespace, context)
    if not isinstance(deploy_target, LogTarget):
        raise UsageError(f"The target {deploy_target.name} has no logs.", "Read them on the platform itself.")
    if follow:
        _require_release_with_logs(deploy_target)
    is_empty = True
    for line in deploy_target.logs(follow=follow, tail=tail, since=since):
        is_empty = False
        output.print_result(f"{line.replica}  {line.text}")
    if is_empty:
        _require_release_with_logs(deploy_target)


def _require_release_with_logs(target: Target[Any]) -> None:
    from mlapp.deploy import DeployError

    if not target.releases():  # a release that is starting or has failed has logs, too
        raise DeployError(
            f"{target.app} has no release on the target {target.name}, so it has no logs.",
            f"Deploy it: mlapp deploy --target {target.name}",
        )
