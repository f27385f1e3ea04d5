"""`mlapp abort`"""

from __future__ import annotations

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.target_options import Context, Namespace, TargetName, open_canary_target


def abort_canary(
    target: TargetName = None,
    namespace: Namespace = None,
    context: Context = None,
    environment: Environment = None,
    json: Json = False,
) -> None:
    """Take the canary away; the live release serves all traffic again.

    Example:

      mlapp abort --target k8s
    """
    release = open_canary_target(environment, target, namespace, context).abort(progress=output.print_note)
    if json:
        output.print_json(release)
    else:
        output.print_note(f"Release {release.number} was taken away.")
