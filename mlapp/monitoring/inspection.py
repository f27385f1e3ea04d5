"""Reads the windows of a project's app, and finds their alarms."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from mlapp.baseline import Baseline, describe_unwatched_features
from mlapp.errors import DataError, MlappError, UsageError, translate_user_errors
from mlapp.monitoring.alarms import find_window_alarms
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.counts import Counts
from mlapp.monitoring.evaluation import Evaluation
from mlapp.monitoring.history import (
    list_history_windows,
    read_history_baselines,
    read_history_counts,
    read_seasonal_counts,
)
from mlapp.monitoring.place import DAY, Place, Window, open_place, parse_seconds
from mlapp.monitoring.time_limit import limit_stage_time
from mlapp.monitoring.truth import Truth, Truths, make_truths_from_table
from mlapp.monitoring.windows import WindowReport
from mlapp.pipeline import Pipeline
from mlapp.project import Project

log = logging.getLogger("mlapp.monitoring")
SHOWN = 24
"""Number of windows that are inspected by default; at least those of a day."""
EVALUATED = 200
"""Maximum number of windows that are evaluated (the last ones), because reading the log takes long."""
PATIENCE = 600.0
"""Seconds after which a truth_reader is interrupted."""
WARMING = 3
"""Number of earlier windows that are read too, because an alarm may have begun in them."""


def open_place_for_inspection(project: Project) -> Place:
    """The place of the project's monitoring data.

    Raises:
        ConfigError, MissingExtraError: it cannot be opened.
    """
    return open_place(project.settings.monitor, project.store, project.root, project.name)


def inspect_windows(
    project: Project,
    *,
    since: float | None = None,
    until: float | None = None,
    version: str | None = None,
    now: float | None = None,
    evaluates: bool = True,
) -> list[WindowReport]:
    """The windows of a time interval, in order, separate for each version.

    Args:
        since, until: seconds since 1970. By default the last day, or the last windows if they are longer. Without
            `since`, at most the last `EVALUATED` windows: a day of short ones has thousands.
        evaluates: run the app's evaluator where truths are known.

    Raises:
        StoreError: the data cannot be read. UsageError: no such version, or the period ends before it starts.
    """
    settings = project.settings.monitor
    seconds = parse_seconds(settings.window)
    now = time.time() if now is None else now
    until = now + seconds if until is None else until
    is_bounded, since = since is None, until - max(SHOWN * seconds, DAY) if since is None else since
    if since >= until:
        raise UsageError("The start of the period is not before its end.", "Give an earlier --since.")
    if version is not None:
        version = str(project.store.resolve(project.name, version))
    place = open_place_for_inspection(project)
    windows = list_history_windows(place, since=since - WARMING * seconds, until=until, version=version)
    begins = sorted({window.since for _, window in windows})
    if is_bounded and len(begins) > EVALUATED + WARMING:
        since = float(begins[-EVALUATED])
        windows = [pair for pair in windows if pair[1].since >= begins[-EVALUATED - WARMING]]
    baselines = read_history_baselines(project.store, project.name, (number for number, _ in windows))
    counts = read_history_counts(place, windows, baselines)
    quality = _inspect_quality(project, place, counts, baselines) if evaluates and counts else {}
    earlier = read_seasonal_counts(place, settings, windows, baselines)
    reports = find_window_alarms(counts, baselines, settings, now=now, quality=quality, earlier_counts=earlier)
    return [report for report in fill_window_gaps(reports, seconds) if report.until.timestamp() > since]


def describe_unwatched_versions(project: Project, reports: Sequence[WindowReport]) -> list[str]:
    """A sentence for each version in these windows that has too many features to compare."""
    sentences = []
    for version in sorted({report.version for report in reports if report.version.isdecimal()}, key=int):
        with contextlib.suppress(MlappError):  # the version is deleted
            schema = project.store.get(project.name, version).manifest.schema.features
            columns = len(schema.names) or (schema.shape[0] if len(schema.shape) == 1 else 0)
            if warning := describe_unwatched_features(columns):
                sentences.append(f"Version {version}: {warning}")
    return sentences


def fill_window_gaps(reports: Sequence[WindowReport], seconds: int, max_gap: int = 200) -> list[WindowReport]:
    """The windows, with empty windows in gaps of at most `max_gap` windows without predictions."""
    filled: list[WindowReport] = []
    for report in reports:
        if filled:
            begin, end = filled[-1].until.timestamp(), report.since.timestamp()
            missing = round((end - begin) / seconds)
            if 0 < missing <= max_gap:
                filled += [
                    _make_empty_inspection_report(begin + at * seconds, seconds, report.version)
                    for at in range(missing)
                ]
        filled.append(report)
    return filled


def read_truths(
    pipeline: Pipeline, rules: ColumnPrivacy, place: Place, since: float, until: float, baseline: Baseline | None
) -> list[Truth]:
    """Truths of the app's truth_reader in a time interval.

    Raises:
        UserCodeError: it raised, or did not return in time. DataError: its columns or values are wrong.
    """
    stage = pipeline.stage("truth_reader")
    if stage is None:
        return []
    from mlapp.training import stage_calls
    from mlapp.training.defaults import load_default_table

    times = {"since": datetime.fromtimestamp(since, timezone.utc), "until": datetime.fromtimestamp(until, timezone.utc)}
    parameters = set(stage.signature.parameters)
    with limit_stage_time(stage.title, PATIENCE):
        table = stage_calls.call_stage(stage, **{name: value for name, value in times.items() if name in parameters})
        try:
            with translate_user_errors(stage.title):  # a truth_reader that is a generator runs only here
                frame = load_default_table(table)
        except DataError as error:
            todo = "Return a table with the columns id and truth, or key columns and truth."
            raise DataError(f"{stage.title}: {error.what}", todo) from error
    if not frame.size and not len(frame.columns):  # such as an empty list: no truth is known yet
        return []
    try:
        entries = make_truths_from_table(frame)
        return Truths(place, rules, baseline).check_truths(entries) if entries else []
    except MlappError as error:
        raise DataError(f"{stage.title}: {error.what}", error.todo) from error


def parse_inspected_moment(text: str | None, now: float | None = None) -> float | None:
    """`2h` or `7d` ago, or a time such as 2026-01-31T12:00 (UTC without a zone), as seconds since 1970.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,12}[smhd]", text):
        return max(0.0, (time.time() if now is None else now) - parse_seconds(text))
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(f"'{text}' is not a time.", "Give it as 2h, 7d, or 2026-01-31T12:00.") from None
    return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp())


def _inspect_quality(
    project: Project, place: Place, counts: Sequence[Counts], baselines: dict[str, Baseline]
) -> dict[tuple[str, Window], Any]:
    """The quality of the last windows; empty, with a warning, if there is no log, no app, or an error in its code.

    Drift is reported all the same.
    """
    settings = project.settings.monitor
    if not place.names("log"):
        return {}
    windows = [(counts_of_window.version, counts_of_window.window) for counts_of_window in counts][-EVALUATED:]
    try:
        app = project.app
        # If the versions' targets have different types, truths of any type are accepted.
        baseline = (
            next(iter(baselines.values()), None)
            if len({counts_of_window.target for counts_of_window in baselines.values()}) == 1
            else None
        )
        rules = ColumnPrivacy(settings.columns, app.name)
        since, until = min(window.since for _, window in windows), max(window.until for _, window in windows)
        # A truth can become known long after its window.
        truths = _read_truths_or_warn(app, rules, place, since, max(until, time.time()), baseline)
        return dict(Evaluation(app, project.store, place, settings).evaluate_windows(windows, truths))
    except MlappError as error:
        log.warning("Quality is unknown: %s %s", error.what, error.todo)
    return {}


def _read_truths_or_warn(
    pipeline: Pipeline, rules: ColumnPrivacy, place: Place, since: float, until: float, baseline: Baseline | None
) -> list[Truth]:
    """The truths of the truth_reader. Without them, those sent as feedback are still evaluated."""
    try:
        return read_truths(pipeline, rules, place, since, until, baseline)
    except MlappError as error:
        log.warning("Truths are missing: %s %s", error.what, error.todo)
        return []


def _make_empty_inspection_report(since: float, seconds: int, version: str) -> WindowReport:
    return WindowReport(
        since=datetime.fromtimestamp(since, timezone.utc),
        until=datetime.fromtimestamp(since + seconds, timezone.utc),
        version=version,
        rows=0,
        refused=0,
        truths=0,
        state="empty",
        metrics={},
        alarms=[],
    )
