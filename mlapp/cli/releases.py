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

    deploy_target = open_target_from_options(Project.find(environment=environment), target, namespace, context)
    releases = deploy_target.releases()
    if json:
        output.print_json(releases)
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
            for release in releases
        ],
    )
    if not releases:
        output.print_note(f"{deploy_target.app} has no release. Deploy it: mlapp deploy --target {deploy_target.name}")
