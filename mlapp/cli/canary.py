"""`mlapp promote` and `mlapp abort`"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.target_options import Context, Namespace, TargetName, open_canary_target

if TYPE_CHECKING:
    from mlapp.deploy import Release


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
    deploy_target = open_canary_target(environment, target, namespace, context)
    _print_canary_release(deploy_target.promote(progress=output.print_note), "is live", json)


def abort_canary(
    target: TargetName = None,
    namespace: Namespace = None,
    context: Context = None,
    environment: Environment = None,
    json: Json = False,
) -> None:
    """Remove the canary. The live release then serves all traffic.

    Example:

      mlapp abort --target k8s
    """
    deploy_target = open_canary_target(environment, target, namespace, context)
    _print_canary_release(deploy_target.abort(progress=output.print_note), "was removed", json)


def _print_canary_release(release: Release, outcome: str, json: bool) -> None:
    if json:
        output.print_json(release)
    else:
        output.print_note(f"Release {release.number} {outcome}.")
