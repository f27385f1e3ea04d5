"""`mlapp status`"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.target_options import Context, Namespace, TargetName, open_target_from_options

if TYPE_CHECKING:
    from mlapp.deploy import Event, Release, Replica, Status


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

    status = open_target_from_options(Project.find(environment=environment), target, namespace, context).status()
    if json:
        output.print_json(status)
    else:
        output.print_table([status.app, ""], _list_status_rows(status))
        if status.replicas:
            output.print_result("")
            _print_replica_table(status.replicas)
        if status.events:
            output.print_result("")
            _print_event_table(status.events)
        for problem in status.problems:
            output.print_note(f"Problem: {problem}")
        if status.release is None and not status.problems:
            output.print_note(f"Nothing is deployed there. Deploy it: mlapp deploy --target {status.target}")
    if check and (status.problems or status.release is None or status.ready < status.desired):
        raise typer.Exit(1)


def _list_status_rows(status: Status) -> list[list[object]]:
    release, canary = status.release, status.canary
    rows: list[list[object]] = [["place", status.place or status.target]]
    rows += _list_release_rows(release, status.url) if release else [["release", "none is live"]]
    if canary:
        version = canary.shipment.model_version or "unknown"
        rows.append(["canary", f"release {canary.number}, model version {version}"])
    if len(status.traffic) > 1:
        parts = [f"{share} % to release {number}" for number, share in status.traffic.items()]
        rows.append(["traffic", ", ".join(parts)])
    if release is None or release.shipment.image:
        rows.append(["ready", f"{status.ready} of {status.desired}"])
    if status.scaling:
        rows.append(["scaling", status.scaling])
    return rows


def _list_release_rows(release: Release, url: str | None) -> list[list[object]]:
    shipment = release.shipment
    by = f" by {release.by}" if release.by else ""
    note = f" ({release.note})" if release.note else ""
    rows: list[list[object]] = [["release", f"{release.number}, {_format_status_age(release.created)} ago{by}{note}"]]
    if shipment.image:  # otherwise the release is scheduled code without model, URL and replicas
        rows += [
            ["model", f"version {shipment.model_version or 'unknown'}"],
            ["code", shipment.code_revision or "unknown"],
            ["image", shipment.image],
            ["url", url or "none"],
        ]
    return rows


def _print_replica_table(replicas: Sequence[Replica]) -> None:
    output.print_table(
        ["replica", "state", "release", "restarts", "age", "node"],
        [
            [
                replica.name,
                "Ready" if replica.ready else replica.state,
                replica.release,
                replica.restarts,
                _format_status_age(replica.started) if replica.started else None,
                replica.node,
            ]
            for replica in replicas
        ],
    )


def _print_event_table(events: Sequence[Event]) -> None:
    output.print_table(
        ["event", "about", "ago", "message"],
        [
            [event.reason, event.subject, _format_status_age(event.time), " ".join(event.message.split())[:160]]
            for event in events
        ],
    )


def _format_status_age(time: datetime) -> str:
    """The elapsed time in its largest unit, like kubectl's AGE: 5d, 3h, 20m, 45s."""
    seconds = max(0, int((datetime.now(timezone.utc) - time).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
