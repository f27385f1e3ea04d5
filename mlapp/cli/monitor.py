"""`mlapp monitor`: drift and quality of the served model"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment, Json, Yes

if TYPE_CHECKING:
    from mlapp.monitoring.windows import WindowReport

cli = typer.Typer(invoke_without_command=True)
Since = Annotated[
    str | None, typer.Option(help="Start of the report: 2h, 7d, or 2026-01-31T12:00. [a day, at most 200 windows]")
]
Until = Annotated[str | None, typer.Option(help="End of the report. [now]")]
Version = Annotated[str | None, typer.Option(help="A version, an alias or `latest`. [all]")]
MAX_TABLE_ROWS = 24


@cli.callback()
def show_windows(
    context: typer.Context,
    since: Since = None,
    until: Until = None,
    version: Version = None,
    json: Json = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if the last closed window has an alarm.")] = False,
    environment: Environment = None,
) -> None:
    """Show drift and quality by window.

    Includes drift of features and predictions, refused inputs, and quality if true values are known.

    Examples:

      mlapp monitor --since 7d

      mlapp monitor --check --json
    """
    if context.invoked_subcommand is not None:
        return
    from mlapp.monitoring.deliveries import Deliveries, describe_pending_deliveries
    from mlapp.monitoring.inspection import (
        describe_unwatched_versions,
        inspect_windows,
        open_place_for_inspection,
        parse_inspected_moment,
    )
    from mlapp.monitoring.trainings import Trainings
    from mlapp.project import Project

    project = Project.find(environment=environment)
    reports = inspect_windows(
        project, since=parse_inspected_moment(since), until=parse_inspected_moment(until), version=version
    )
    if json:
        output.print_json({"app": project.name, "windows": reports})
    else:
        _print_monitor_windows(reports)
    for sentence in describe_unwatched_versions(project, reports):
        output.print_note(sentence)
    place = open_place_for_inspection(project)
    if project.settings.monitor.retrain is not None and (failure := Trainings(place).describe_failure()):
        output.print_note(failure)
    deliveries = Deliveries(place, project.settings.monitor.alerts)
    for receiver, count in deliveries.count_pending().items():
        output.print_note(describe_pending_deliveries(receiver, count))
    if check and _has_alarm_in_last_window(reports):
        raise typer.Exit(1)


@cli.command("run")
def close_ended_windows(
    bundle: Annotated[Path | None, typer.Option(help="The served bundle, instead of a project.")] = None,
    environment: Environment = None,
) -> None:
    """Close the windows that have ended.

    Evaluates them, stores the results and sends alarms.
    Each window is closed once, even if several processes run this command. The server runs it; on Kubernetes, a
    CronJob does.

    Example:

      mlapp monitor run
    """
    from mlapp.monitoring.closing import close_windows
    from mlapp.serving.serve_spec import find_served_projects

    for project in find_served_projects((), str(bundle) if bundle else None, environment):
        closed = close_windows(project)
        output.print_note(
            f"{project.name}: {closed.windows} windows closed, {len(closed.sent)} alarms started or ended."
        )
        for event in closed.sent:
            output.print_note(f"{event['status']}: {event['text']}")


@cli.command("report")
def write_html_report(
    html: Annotated[Path, typer.Option("--html", help="File to write.")],
    since: Since = None,
    until: Until = None,
    version: Version = None,
    environment: Environment = None,
) -> None:
    """Write drift, quality and volume to one HTML file.

    The file needs no network.

    Example:

      mlapp monitor report --html report.html --since 7d
    """
    from mlapp.monitoring.inspection import parse_inspected_moment
    from mlapp.monitoring.report import write_report
    from mlapp.project import Project

    project = Project.find(environment=environment)
    write_report(
        project, html, since=parse_inspected_moment(since), until=parse_inspected_moment(until), version=version
    )
    output.print_result(str(html))


@cli.command("sql")
def query_log(
    query: Annotated[str, typer.Argument(help="A query over the tables log and truth.")],
    json: Json = False,
    environment: Environment = None,
) -> None:
    """Query the prediction log with DuckDB.

    Example:

      mlapp monitor sql "SELECT version, sum(weight) FROM log GROUP BY version"
    """
    from mlapp.monitoring.database import query_monitoring_database
    from mlapp.monitoring.inspection import open_place_for_inspection
    from mlapp.project import Project
    from mlapp.schema.json_values import to_json_value

    names, rows = query_monitoring_database(open_place_for_inspection(Project.find(environment=environment)), query)
    if json:
        output.print_json([dict(zip(names, map(to_json_value, row), strict=True)) for row in rows])
    else:
        output.print_table(names, [list(map(to_json_value, row)) for row in rows])


@cli.command("forget")
def forget_person(
    key: Annotated[list[str], typer.Option("--key", help="NAME=VALUE of a business key, a feature, or id.")],
    yes: Yes = False,
    environment: Environment = None,
) -> None:
    """Delete a person's rows and true values from the prediction log.

    Example:

      mlapp monitor forget --key customer=4711 --yes
    """
    from mlapp.monitoring.column_privacy import ColumnPrivacy
    from mlapp.monitoring.forgetting import forget_person_rows
    from mlapp.monitoring.inspection import open_place_for_inspection
    from mlapp.project import Project

    project = Project.find(environment=environment)
    pairs = _parse_person_keys(key)
    output.ask_confirmation(f"Delete all rows with {', '.join(key)}?", yes=yes)
    privacy = ColumnPrivacy(project.settings.monitor.columns, project.name)
    rows = forget_person_rows(open_place_for_inspection(project), pairs, privacy)
    output.print_result(f"{rows} row{'' if rows == 1 else 's'} deleted")


@cli.command("skew")
def report_skew(
    rows: Annotated[int, typer.Option(min=1, help="Number of log rows to predict again.")] = 1000,
    version: Version = None,
    json: Json = False,
    environment: Environment = None,
) -> None:
    """Predict logged rows again and report differences.

    Exits with 1 if serving gave other predictions.

    Example:

      mlapp monitor skew --rows 5000
    """
    from mlapp.monitoring.skew import find_skew
    from mlapp.project import Project

    skew = find_skew(Project.find(environment=environment), rows, version)
    if json:
        output.print_json(skew)
    elif skew.different:
        output.print_result(f"{skew.different} of {skew.rows} predictions differ from those of the training path.")
        for column in skew.columns:
            output.print_result(f"  {column.name}: {column.text}")
    else:
        output.print_result(f"All {skew.rows} predictions match those of the training path.")
    if skew.different:
        raise typer.Exit(1)


def _parse_person_keys(texts: Sequence[str]) -> dict[str, str]:
    """Names and values. A row is deleted if it matches all of them."""
    from mlapp.errors import UsageError

    pairs: dict[str, str] = {}
    for name, value in map(_parse_person_key, texts):
        if name in pairs:
            raise UsageError(f"--key {name} is given twice.", "Run the command once for each value.")
        pairs[name] = value
    return pairs


def _parse_person_key(text: str) -> tuple[str, str]:
    from mlapp.errors import UsageError

    name, separator, value = text.partition("=")
    if not separator or not name:
        raise UsageError(f"--key {text} is not NAME=VALUE.", "Give it as --key customer=4711.")
    return name, value


def _has_alarm_in_last_window(reports: Sequence[WindowReport]) -> bool:
    closed = [report for report in reports if report.closed and report.state != "empty"]
    return any(report.state == "alarm" for report in closed if report.until == closed[-1].until)


def _print_monitor_windows(reports: Sequence[WindowReport]) -> None:
    if not reports:
        output.print_result("There were no predictions in this period.")
        output.print_note("A server's counts appear within seconds of its answers. For another period, use --since.")
        return
    runs = [list(run) for _, run in groupby(reports, lambda report: report if report.state != "empty" else None)]
    shown = [(run[0], len(run)) for run in runs[-MAX_TABLE_ROWS:]]
    if len(shown) < len(runs):
        hidden = sum(len(run) for run in runs[:-MAX_TABLE_ROWS])
        output.print_note(f"{hidden} earlier windows are not shown; --json prints all of them.")
    from mlapp.monitoring.windows import format_window_quality

    rows: list[list[Any]] = []
    for report, windows in shown:
        metrics = format_window_quality(report)
        state = report.state if report.closed else f"{report.state} (open)"
        if windows > 1:
            state += f" ({windows} windows)"
        begin = report.since.strftime("%Y-%m-%d %H:%M:%S")
        rows.append([begin, report.version, report.rows, report.refused, report.truths, state, metrics])
    output.print_table(["since (UTC)", "version", "rows", "refused", "truths", "state", "quality"], rows)
    _print_quality_of_segments([report for report, _ in shown])
    _print_monitor_alarms([report for report, _ in shown])
    _print_unknown_truth_classes([report for report, _ in shown])


def _print_quality_of_segments(reports: Sequence[WindowReport]) -> None:
    """Print the metrics of the segments in the last window that has any."""
    from mlapp.monitoring.windows import format_window_segments

    for report in reversed(reports):
        if segments := format_window_segments(report):
            output.print_result(
                f"\nSegments in the window from {report.since:%Y-%m-%d %H:%M:%S}, version {report.version}:"
            )
            for segment in segments:
                output.print_result(f"  {segment}")
            return


def _print_unknown_truth_classes(reports: Sequence[WindowReport]) -> None:
    from mlapp.monitoring.truth import describe_unknown_truth_classes

    for report in reports:
        if report.unknown_classes:
            begin = f"Window from {report.since:%Y-%m-%d %H:%M:%S}, version {report.version}"
            output.print_result(f"\n{begin}: {describe_unknown_truth_classes(report.unknown_classes)}")


def _print_monitor_alarms(reports: Sequence[WindowReport]) -> None:
    """Print each alarm in the window in which it starts, or in the first displayed window."""
    active: dict[str, set[tuple[str, str]]] = {}
    for report in reports:
        before = active.get(report.version, set())
        active[report.version] = {(alarm.kind, alarm.column) for alarm in report.alarms}
        new_alarms = [alarm for alarm in report.alarms if (alarm.kind, alarm.column) not in before]
        if new_alarms:
            begin = f"{report.since:%Y-%m-%d %H:%M:%S}, version {report.version}"
            output.print_result(f"\nAlarms that began in the window from {begin}:")
        for alarm in new_alarms:
            output.print_result(f"  {alarm.text}")
