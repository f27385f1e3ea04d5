"""`mlapp logs`"""

from __future__ import annotations

from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment
from mlapp.cli.target_options import Context, Namespace, TargetName, open_target_from_options
from mlapp.errors import UsageError


def print_logs(
    target: TargetName = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines.")] = False,
    tail: Annotated[
        int | None, typer.Option(min=0, help="Print only this number of last lines of each replica.")
    ] = None,
    since: Annotated[float | None, typer.Option(min=0, help="Print only the lines of the last seconds.")] = None,
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

    place = open_target_from_options(Project.find(environment=environment), target, namespace, context)
    if not isinstance(place, LogTarget):
        raise UsageError(f"The target {place.name} has no logs.", "Look for them on the platform itself.")
    for line in place.logs(follow=follow, tail=tail, since=since):
        output.print_result(f"{line.replica}  {line.text}")
