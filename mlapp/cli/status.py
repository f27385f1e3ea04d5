"""`mlapp status`"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.target_options import Context, Namespace, TargetName, open_target_from_options


def show_status(
    target: TargetName = None,
    namespace: Namespace = None,
    context: Context = None,
    environment: Environment = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if there is a problem.")] = False,
    json: Json = False,
) -> None:
    """Show the state of the app on its target.

    Includes release, replicas, model version, traffic, scaling, latest events and problems.

    Example:

      mlapp status --target k8s
    """
    from mlapp.project import Project

    found = open_target_from_options(Project.find(environment=environment), target, namespace, context).status()
    if json:
        output.print_json(found)
    else:
        release, canary = found.release, found.canary
        rows: list[list[object]] = [["place", found.place or found.target]]
        if release:
            shipped = release.shipment
            by = f" by {release.by}" if release.by else ""
            rows.append(
                [
                    "release",
                    f"{release.number}, {_format_status_age(release.created)} ago{by}"
                    f"{_format_status_note(release.note)}",
                ]
            )
            if shipped.image:  # otherwise the release is scheduled code without model, URL and replicas
                rows += [
                    ["model", f"version {shipped.model_version or 'unknown'}"],
                    ["code", shipped.code_revision or "unknown"],
                    ["image", shipped.image],
                    ["url", found.url or "none"],
                ]
        else:
            rows.append(["release", "none is live"])
        if canary:
            version = canary.shipment.model_version or "unknown"
            rows.append(["canary", f"release {canary.number}, model version {version}"])
        if len(found.traffic) > 1:
            parts = [f"{share} % to release {number}" for number, share in found.traffic.items()]
            rows.append(["traffic", ", ".join(parts)])
        if release is None or release.shipment.image:
            rows.append(["ready", f"{found.ready} of {found.desired}"])
        if found.scaling:
            rows.append(["scaling", found.scaling])
        output.print_table([found.app, ""], rows)
        if found.replicas:
            typer.echo("")
            output.print_table(
                ["replica", "state", "release", "restarts", "age", "node"],
                [
                    [
                        each.name,
                        "Ready" if each.ready else each.state,
                        each.release,
                        each.restarts,
                        _format_status_age(each.started) if each.started else None,
                        each.node,
                    ]
                    for each in found.replicas
                ],
            )
        if found.events:
            typer.echo("")
            output.print_table(
                ["event", "about", "ago", "message"],
                [
                    [each.reason, each.subject, _format_status_age(each.time), " ".join(each.message.split())[:160]]
                    for each in found.events
                ],
            )
        for problem in found.problems:
            output.print_note(f"Problem: {problem}")
        if release is None and not found.problems:
            output.print_note(f"Nothing is deployed there. Deploy it: mlapp deploy --target {found.target}")
    if check and (found.problems or found.release is None or found.ready < found.desired):
        raise typer.Exit(1)


def _format_status_note(note: str | None) -> str:
    return f" ({note})" if note else ""


def _format_status_age(time: datetime) -> str:
    """The elapsed time in its largest unit, like kubectl's AGE: 5d, 3h, 20m, 45s."""
    seconds = max(0, int((datetime.now(timezone.utc) - time).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
