"""Finds alarms in windows of counts: findings that persist become alarms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone

import msgspec

from mlapp.baseline import Baseline, Column
from mlapp.config import Drift, Monitor
from mlapp.monitoring.counts import Counts, merge_counts
from mlapp.monitoring.drift import AlarmKind, Finding, compute_drift_distances, find_drifted_columns
from mlapp.monitoring.history import find_season
from mlapp.monitoring.persistence import Persistence
from mlapp.monitoring.place import HOUR, WEEK, Window
from mlapp.monitoring.windows import Alarm, Quality, WindowReport


def find_window_alarms(
    windows: Iterable[Counts],
    baselines: Mapping[str, Baseline],
    settings: Monitor,
    *,
    now: float,
    quality: Mapping[tuple[str, Window], Quality] | None = None,
    earlier_counts: Iterable[Counts] = (),
) -> list[WindowReport]:
    """The windows in order, each with its alarms.

    Args:
        windows: counts of all replicas, one for each version and window.
        baselines: version → its baseline.
        now: seconds since 1970. A window that ends later is open.
        quality: version and window → its quality.
        earlier_counts: counts of the same weekdays and hours in earlier weeks, for `drift.seasonal`.
    """
    tests = settings.tests
    persistent: dict[str, Persistence] = {}
    current: dict[str, set[tuple[AlarmKind, str]]] = {}
    last: dict[tuple[str, AlarmKind, str], Finding] = {}
    past: dict[tuple[str, int, int], list[Counts]] = {}
    for counts in earlier_counts:
        past.setdefault((counts.version, *find_season(counts.since)), []).append(counts)
    reports = []
    for counts in sorted(windows, key=lambda counts: (counts.since, counts.version)):
        baseline = baselines.get(counts.version)
        findings: list[Finding] = []
        alarming = current.get(counts.version, set())  # with too few rows to test, alarms go on
        if tests is not None and baseline is not None and _can_window_alarm(counts, tests):
            findings = find_drifted_columns(baseline, counts, tests)
            if tests.seasonal:
                findings = _select_seasonal_alarms(findings, baseline, counts, tests, past)
            watch = persistent.setdefault(counts.version, Persistence(tests.persist))
            alarming = watch.add({(finding.kind, finding.column) for finding in findings})
            current[counts.version] = alarming
        for finding in findings:
            last[counts.version, finding.kind, finding.column] = finding
        alarms = [
            Alarm.of(last[counts.version, kind, column])
            for kind, column in sorted(alarming)
            if (counts.version, kind, column) in last
        ]
        window_quality = (quality or {}).get((counts.version, counts.window)) or Quality()
        alarms += [Alarm.of(finding) for finding in window_quality.findings]
        reports.append(_make_window_report(counts, baseline, window_quality, alarms, now))
    return reports


def _make_window_report(
    counts: Counts, baseline: Baseline | None, quality: Quality, alarms: list[Alarm], now: float
) -> WindowReport:
    return WindowReport(
        since=datetime.fromtimestamp(counts.since, timezone.utc),
        until=datetime.fromtimestamp(counts.until, timezone.utc),
        version=counts.version,
        rows=counts.rows,
        refused=counts.refused,
        truths=quality.truths,
        state="alarm" if alarms else "quiet" if counts.rows or counts.refused else "empty",
        metrics=quality.metrics,
        alarms=alarms,
        closed=counts.until <= now,
        quality=quality.details,
        unknown_classes=quality.unknown_classes,
        distances={} if baseline is None else compute_drift_distances(baseline, counts),
    )


def _can_window_alarm(counts: Counts, tests: Drift) -> bool:
    return counts.rows + counts.refused >= tests.min_rows


def _select_seasonal_alarms(
    findings: list[Finding],
    baseline: Baseline,
    counts: Counts,
    tests: Drift,
    past: dict[tuple[str, int, int], list[Counts]],
) -> list[Finding]:
    """The findings that also differ from the same weekday and hour of earlier weeks, if there are any."""
    season = past.get((counts.version, *find_season(counts.since)), ())
    before = merge_counts(other for other in season if counts.since - other.since >= WEEK - HOUR)
    if before is None or before.rows < tests.min_rows:
        return findings
    usual = {
        (finding.kind, finding.column)
        for finding in find_drifted_columns(_make_seasonal_baseline(baseline, before), counts, tests)
    }
    return [finding for finding in findings if (finding.kind, finding.column) in usual or finding.kind == "refused"]


def _make_seasonal_baseline(baseline: Baseline, counts: Counts) -> Baseline:
    """The baseline with the counts of earlier weeks instead of those of training."""
    return msgspec.structs.replace(
        baseline,
        features=[_replace_seasonal_counts(column, counts) for column in baseline.features],
        predictions=[_replace_seasonal_counts(column, counts) for column in baseline.predictions],
    )


def _replace_seasonal_counts(column: Column, counts: Counts) -> Column:
    live = counts.columns.get(column.name)
    if live is None or len(live) != len(column.counts) + 3:
        return column
    others = live[-3] if column.kind == "category" else 0
    return msgspec.structs.replace(column, rows=sum(live), missing=live[-1], counts=live[:-3], others=others)
