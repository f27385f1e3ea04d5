"""`mlapp promote`"""

from __future__ import annotations

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.target_options import Context, Namespace, TargetName, canary_target


def promote(
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
    release = canary_target(environment, target, namespace, context).promote(progress=output.note)
    if json:
        output.json(release)
    else:
        output.note(f"Release {release.number} is live.")
