"""`mlapp delete`"""

from __future__ import annotations

from mlapp.cli import output
from mlapp.cli.options import Environment, Json, Yes
from mlapp.cli.target_options import Context, Namespace, TargetName, open_target_from_options


def delete_app(
    target: TargetName = None,
    namespace: Namespace = None,
    context: Context = None,
    environment: Environment = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove the app and its releases from its target. Keeps claims, Secrets and the namespace.

    Example:

      mlapp delete --target k8s --namespace team-a
    """
    from mlapp.project import Project

    deploy_target = open_target_from_options(Project.find(environment=environment), target, namespace, context)
    if not yes:
        status = deploy_target.status()
        location = status.place or deploy_target.name
        output.ask_confirmation(
            f"Remove {deploy_target.app} with {status.ready} ready replicas from {location}?", yes=False
        )
    removed = deploy_target.delete(progress=output.print_note)
    if json:
        output.print_json(removed)
    else:
        output.print_note(
            f"{deploy_target.app} is removed." if removed else f"There was nothing to remove for {deploy_target.app}."
        )
