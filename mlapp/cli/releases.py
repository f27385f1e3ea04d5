"""`mlapp releases`"""

from __future__ import annotations

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.target_options import Context, Namespace, TargetName, open_target_from_options


def list_releases(
    target: TargetName = None,
    namespace: Namespace = None,
    context: Context = None,
    environment: Environment = None,
    json: Json = False,
) -> None:
    """List the releases, newest last.

    Includes failed releases and those that `mlapp rollback` can restore.

    Example:

      mlapp releases --target k8s
    """
    from mlapp.project import Project

    place = open_target_from_options(Project.find(environment=environment), target, namespace, context)
    found = place.releases()
    if json:
        output.print_json(found)
        return
    output.print_table(
        ["release", "state", "created", "model", "code", "by", "note"],
        [
            [
                release.number,
                release.state,
                f"{release.created:%Y-%m-%d %H:%M}",
                release.shipment.model_version,
                release.shipment.code_revision,
                release.by,
                (release.note or "")[:80],
            ]
            for release in found
        ],
    )
    if not found:
        output.print_note(f"{place.app} has no release. Deploy it: mlapp deploy --target {place.name}")
