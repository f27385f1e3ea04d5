"""`mlapp rollback`"""

from __future__ import annotations

from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.target_options import Context, Namespace, TargetName, open_target_from_options


def roll_back(
    target: TargetName = None,
    to: Annotated[
        int | None, typer.Option(min=1, help="Number of the release. By default the one before the live one.")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    environment: Environment = None,
    json: Json = False,
) -> None:
    """Go back to an earlier release.

    Restores image, model and configuration together, as a new release.

    Examples:

      mlapp rollback --target k8s

      mlapp rollback --target k8s --to 3
    """
    from mlapp.project import Project

    deploy_target = open_target_from_options(Project.find(environment=environment), target, namespace, context)
    release = deploy_target.rollback(to, progress=output.print_note)
    if json:
        output.print_json(release)
    else:
        version = release.shipment.model_version or "unknown"
        note = f"{release.note}, " if release.note else ""
        output.print_note(f"Release {release.number} is live: {note}model version {version}.")
