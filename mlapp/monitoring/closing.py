"""Closes windows that have ended: stores their reports, sends alarms, removes old data, and retrains."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from mlapp.config import Monitor
from mlapp.errors import MlappError
from mlapp.monitoring.alarm_ledger import Ledger
from mlapp.monitoring.alerts import AlarmEvent, call_on_alarm, make_alarm_event
from mlapp.monitoring.deliveries import Deliveries, describe_pending_deliveries
from mlapp.monitoring.history import list_history_windows
from mlapp.monitoring.inspection import EVALUATED, inspect_windows, open_place_for_inspection
from mlapp.monitoring.place import DAY, Place, Window, parse_seconds
from mlapp.monitoring.retention import remove_expired_files
from mlapp.monitoring.retraining import retrain_if_due
from mlapp.monitoring.windows import Alarm, WindowReport
from mlapp.project import Project

log = logging.getLogger("mlapp.monitoring")
NEAR, FAR = 2.5, 15.0
"""Seconds after a window's end until the replicas have written their last counts: to a folder, and to a bucket."""
FEWEST = 20
"""Minimum truths of a window for which it can end an alarm of quality."""
UNDER_WAY = 10.0
"""Seconds after which a run that has closed the newest window has also closed the older ones."""


class ClosedAt(msgspec.Struct):
    """When a window was closed, in nanoseconds since 1970."""

    closed_at: int = 0


@dataclass
class Closed:
    """Result of a run."""

    windows: int = 0
    sent: list[AlarmEvent] = field(default_factory=list)
    trained: str | None = None


def close_windows(project: Project, now: float | None = None) -> Closed:
    """Close the windows that have ended.

    Raises:
        StoreError: the place cannot be read or written.
    """
    now = time.time() if now is None else now
    place = open_place_for_inspection(project)
    deliveries = Deliveries(place, project.settings.monitor.alerts)
    deliveries.send_due_deliveries()  # first those of earlier runs: they do not depend on the windows
    grace = NEAR if place.folder() is not None else FAR
    inspected = inspect_windows(project, since=_find_closing_start(place, project.settings.monitor, now), now=now)
    reports = [report for report in inspected if report.until.timestamp() + grace <= now]
    closed = Closed()
    send_changes = _make_closing_alert_sender(project, place, closed)
    fresh = _claim_windows(place, [report for report in reports if report.state != "empty"])
    closed.windows = len(fresh)
    tested = _find_tested_versions(project.settings.monitor, reports)
    for report in fresh:
        if report.version not in tested:
            continue
        drifting = [alarm for alarm in report.alarms if alarm.kind != "quality"]
        send_changes(report, drifting, lambda kind: kind != "quality")
    # Truths arrive late, so the quality of the last window with truths counts, even if an earlier run closed it.
    for report in _select_last_known_windows(reports):
        send_changes(
            report, [alarm for alarm in report.alarms if alarm.kind == "quality"], lambda kind: kind == "quality"
        )
    _end_silent_alarms(project, place, reports, closed)
    deliveries.send_due_deliveries()
    for receiver, count in deliveries.count_pending().items():
        log.warning(describe_pending_deliveries(receiver, count))
    remove_expired_files(place, project.settings.monitor, now)
    if project.settings.monitor.retrain is not None:  # last: it can take hours
        closed.trained = retrain_if_due(project, place, reports, now)
    return closed


def _find_closing_start(place: Place, settings: Monitor, now: float) -> float | None:
    """The start of the windows to judge: the last ones, and those of the last day that no run has closed.

    A day of short windows has thousands, which every run would read again. None to judge a day, or the last windows if
    they are longer.
    """
    seconds = parse_seconds(settings.window)
    windows = [window for _, window in list_history_windows(place, since=now - DAY, until=now + seconds)]
    begins = sorted({window.since for window in windows})
    if len(begins) <= EVALUATED:
        return None
    closed = set(place.names("windows"))
    return min([begins[-EVALUATED], *(window.since for window in windows if window.name not in closed)])


def _find_tested_versions(settings: Monitor, reports: Sequence[WindowReport]) -> set[str]:
    """The versions with a window that can be tested for drift. The drift alarms of others go on."""
    least = 0 if settings.tests is None else settings.tests.min_rows
    return {report.version for report in reports if report.rows + report.refused >= least}


def _claim_windows(place: Place, reports: Sequence[WindowReport]) -> list[WindowReport]:
    """The windows that this run closes, oldest first: all open ones, or none while another run closes them.

    The run that closes the newest window closes all of them, so that one run sends the start and the end of an alarm,
    in order. Older windows that are still open after the newest one is closed belong to the run that has just closed
    it, or to one that was killed since.
    """
    if not reports:
        return []
    *older, newest = reports
    is_open = not _is_window_closed(place, newest)  # checked first, because another run closes it first
    if not is_open and _was_closed_just_now(place, newest):
        return []
    waiting = [report for report in older if not _is_window_closed(place, report)] + [newest] * is_open
    if not waiting or not _store_closed_reports(place, waiting[-1]):
        return []
    return [report for report in waiting[:-1] if _store_closed_reports(place, report)] + waiting[-1:]


def _was_closed_just_now(place: Place, report: WindowReport) -> bool:
    """Whether another run may still be closing the windows before this one."""
    closed = place.read_document(_make_closing_window_key(place, report), ClosedAt)
    return closed is not None and abs(time.time_ns() - closed.closed_at) < UNDER_WAY * 10**9


def _is_window_closed(place: Place, report: WindowReport) -> bool:
    return f"{report.version}.json" in place.names("windows", _find_closing_window(report).name)


def _store_closed_reports(place: Place, report: WindowReport) -> bool:
    """Store the reports; False if another run has stored them."""
    # With a time, so that the same report of two runs differs, and `create_key` refuses the second one.
    content = msgspec.json.encode({**msgspec.to_builtins(report), "closed_at": time.time_ns()})
    return place.storage.create_key(_make_closing_window_key(place, report), content)


def _make_closing_window_key(place: Place, report: WindowReport) -> str:
    return place.key("windows", _find_closing_window(report).name, f"{report.version}.json")


def _find_closing_window(report: WindowReport) -> Window:
    return Window(int(report.since.timestamp()), int((report.until - report.since).total_seconds()))


def _make_closing_alert_sender(
    project: Project, place: Place, closed: Closed
) -> Callable[[WindowReport, Sequence[Alarm], Callable[[str], bool]], None]:
    ledger = Ledger(place, project.settings.monitor.alerts)

    def send_changes(report: WindowReport, alarms: Sequence[Alarm], is_concerned: Callable[[str], bool]) -> None:
        """Start the alarms of a window, and end those of its version that it does not have."""
        current = {(alarm.kind, alarm.column) for alarm in alarms}
        for alarm in alarms:
            event = make_alarm_event(project.name, report, alarm)
            if ledger.begin_alarm(report.version, alarm, event):
                _send_window_closing_event(project, event, closed)
        for active in ledger.list_active_alarms():
            if active["version"] != report.version or not is_concerned(active["kind"]):
                continue
            if (active["kind"], active["column"]) not in current:
                event = _list_ended_windows(active, report.since.isoformat(), report.until.isoformat())
                if ledger.end_alarm(report.version, active["kind"], active["column"], event):
                    _send_window_closing_event(project, event, closed)

    return send_changes


def _end_silent_alarms(project: Project, place: Place, reports: Sequence[WindowReport], closed: Closed) -> None:
    """End the alarms of versions that have been replaced and no longer answer."""
    answering = {report.version for report in reports[-12:]}
    if not answering:
        return
    ledger = Ledger(place, project.settings.monitor.alerts)
    for active in ledger.list_active_alarms():
        if active["version"] not in answering:
            event = _list_ended_windows(active, active["since"], active["until"])
            if ledger.end_alarm(active["version"], active["kind"], active["column"], event):
                _send_window_closing_event(project, event, closed)


def _list_ended_windows(active: AlarmEvent, since: str, until: str) -> AlarmEvent:
    return AlarmEvent({**active, "status": "resolved", "since": since, "until": until})


def _send_window_closing_event(project: Project, event: AlarmEvent, closed: Closed) -> None:
    event.pop("noted", None)
    closed.sent.append(event)
    try:
        stage = project.app.stage("on_alarm")
        if stage is not None:
            call_on_alarm(event, stage)
    except MlappError as error:
        log.warning("on_alarm was not called: %s", error.what)


def _select_last_known_windows(reports: Sequence[WindowReport]) -> list[WindowReport]:
    """The last window with known quality of each version."""
    last_reports: dict[str, WindowReport] = {}
    for report in reports:
        if report.truths >= FEWEST and report.metrics:
            last_reports[report.version] = report
    return list(last_reports.values())
