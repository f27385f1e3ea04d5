"""`mlapp promote`"""

from __future__ import annotations

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.target_options import Context, Namespace, TargetName, open_canary_target


def promote_canary(
    target: TargetName = None,
    namespace: Namespace = None,
    context: Context = None,
    environment: Environment = None,
    json: Json = False,
) -> None:
    """Make the canary the live release.

    Example:

      mlapp promote --target k8s
    """
    release = open_canary_target(environment, target, namespace, context).promote(progress=output.print_note)
    if json:
        output.print_json(release)
    else:
        output.print_note(f"Release {release.number} is live.")
