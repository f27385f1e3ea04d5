"""The Prometheus metrics of monitoring.

`mlapp_feature_rows_total` is a histogram whose upper ends are quantiles of the training data: a rule adds it up over
all pods, and compares it with `mlapp_feature_baseline_ratio`, the training data's own share below each end.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client import Counter as Total

from mlapp.baseline import Baseline, Column
from mlapp.monitoring.counts import Counter, Counts, Slots
from mlapp.monitoring.drift import compute_drift_distances

ENDS = 10
"""Maximum upper ends, or values of a category, of a column in Prometheus."""
MOST_COLUMNS = 64
"""Maximum columns with series."""


class MonitorMetrics:
    """The series of one app.

    Args:
        model: the app's name.
    """

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        self._model = model
        self._rows = _get_or_create_metric(
            registry, Total, "mlapp_monitored_rows_total", "Rows that were predicted.", ["model", "version"]
        )
        self._features = _get_or_create_metric(
            registry,
            Total,
            "mlapp_feature_rows_total",
            "Rows whose value is at most `le`, or is `value`; of features and predictions.",
            ["model", "version", "feature", "le", "value"],
        )
        self._baseline = _get_or_create_metric(
            registry,
            Gauge,
            "mlapp_feature_baseline_ratio",
            "The same as a share of the training rows.",
            ["model", "version", "feature", "le", "value"],
            multiprocess_mode="livemostrecent",
        )
        self._missing = _get_or_create_metric(
            registry,
            Gauge,
            "mlapp_feature_baseline_missing_ratio",
            "Share of the training rows in which the feature is missing.",
            ["model", "version", "feature"],
            multiprocess_mode="livemostrecent",
        )
        self._problems = _get_or_create_metric(
            registry,
            Total,
            "mlapp_feature_problems_total",
            "Rows with a missing, new or out-of-range value, or that were refused for the field.",
            ["model", "version", "feature", "kind"],
        )
        self._distance = _get_or_create_metric(
            registry,
            Gauge,
            "mlapp_feature_drift_distance",
            "Kolmogorov-Smirnov or Jensen-Shannon distance from training, of this process' open window.",
            ["model", "version", "feature"],
            multiprocess_mode="livemostrecent",
        )
        self.logged = _get_or_create_metric(
            registry, Total, "mlapp_log_rows_total", "Rows written to the prediction log.", ["model"]
        ).labels(model)
        self.dropped = _get_or_create_metric(
            registry, Total, "mlapp_monitor_dropped_rows_total", "Rows that were not recorded.", ["model"]
        ).labels(model)
        self.uncounted = _get_or_create_metric(
            registry,
            Total,
            "mlapp_monitor_uncounted_rows_total",
            "Predicted rows that counted rows represent, because more arrived than can be counted.",
            ["model"],
        ).labels(model)
        self._ends: dict[str, dict[str, list[tuple[str, str, int]]]] = {}
        self._series: dict[str, _Series] = {}

    def publish_baseline(self, version: str, baseline: Baseline) -> None:
        """Publish the shares of a version's baseline."""
        ends: dict[str, list[tuple[str, str, int]]] = {}
        for column in (*baseline.features, *baseline.predictions)[:MOST_COLUMNS]:
            known_rows = column.rows - column.missing
            if column.kind == "text" or not known_rows:
                continue
            ends[column.name] = _list_series_upper_ends(column)
            self._missing.labels(self._model, version, column.name).set(column.missing / column.rows)
            for le, value, last in ends[column.name]:
                below = sum(column.counts[: last + 1]) if le else column.counts[last]
                self._baseline.labels(self._model, version, column.name, le, value).set(below / known_rows)
        self._ends[version] = ends

    def count_rows(self, version: str, rows: int) -> None:
        """Count predicted rows."""
        self._rows.labels(self._model, version).inc(rows)

    def count_refused_rows(self, version: str, fields: Mapping[str, int]) -> None:
        """Count refused rows, by field."""
        for field, count in fields.items():
            self._problems.labels(self._model, version, field, "refused").inc(count)

    def add_counts(self, version: str, counter: Counter) -> None:
        """Add the counts since the last call. They can have been reset to zero."""
        series = self._series.get(version)
        if series is None or series.counter is not counter:
            series = self._series[version] = _Series(counter, self._list_children(version, counter.baseline))
        series.add_new()

    def set_distances(self, version: str, baseline: Baseline, columns: dict[str, list[int]]) -> None:
        """Set the distances of an open window's counts from the baseline."""
        distances = compute_drift_distances(baseline, Counts(version=version, since=0, until=0, columns=columns))
        for name, distance in distances.items():
            self._distance.labels(self._model, version, name).set(distance)

    def _list_children(self, version: str, baseline: Baseline) -> list[tuple[str, list[tuple[int, int]], Any]]:
        """For each series: its column, the ranges of slots that it sums (from the column's first), and its creator."""
        children: list[tuple[str, list[tuple[int, int]], Any]] = []
        for column in (*baseline.features, *baseline.predictions):
            for kind, slots in _list_problem_series_slots(column).items():
                children.append((column.name, slots, partial(self._problem, version, column.name, kind)))
            for le, value, last in self._ends.get(version, {}).get(column.name, ()):
                children.append(
                    (
                        column.name,
                        _list_monitoring_metric_slots(column, le, last),
                        partial(self._row, version, column.name, le, value),
                    )
                )
        return children

    def _problem(self, version: str, feature: str, kind: str) -> Any:
        return self._problems.labels(self._model, version, feature, kind)

    def _row(self, version: str, feature: str, le: str, value: str) -> Any:
        return self._features.labels(self._model, version, feature, le, value)


class _Series:
    """The series of one version's counter. Each sums ranges of slots.

    Args:
        children: the column, the ranges of its slots, and a function that creates the series when it has rows.
    """

    def __init__(self, counter: Counter, children: list[tuple[str, list[tuple[int, int]], Any]]) -> None:
        self.counter = counter
        self._blocks = [
            _Block(block, [(block.first[name], *child) for name, *child in children if name in block.first])
            for block in (counter.features, counter.predictions)
        ]

    def add_new(self) -> None:
        """Add the increments."""
        for block in self._blocks:
            block.add_new()


class _Block:
    """The series of the slots of features, or of predictions."""

    def __init__(self, slots: Slots, children: list[tuple[int, list[tuple[int, int]], Any]]) -> None:
        self._slots = slots
        self._before = np.zeros(len(slots.counts), dtype=np.int64)
        self._cleared = slots.cleared
        self._make = [make for *_, make in children]
        self._made: dict[int, Any] = {}
        ranges = [(child, first + a, first + b) for child, (first, all, _) in enumerate(children) for a, b in all]
        self._child = np.array([child for child, *_ in ranges], dtype=np.int64)
        self._begin = np.array([begin for _, begin, _ in ranges], dtype=np.int64)
        self._end = np.array([end for *_, end in ranges], dtype=np.int64)

    def add_new(self) -> None:
        """Add the counts since the last call."""
        now = self._slots.counts
        if self._slots.cleared != self._cleared:
            self._cleared, self._before = self._slots.cleared, np.zeros_like(now)
        total = np.concatenate(([0], np.cumsum(now - self._before)))
        self._before = now.copy()
        if not len(self._child) or not total[-1]:
            return
        rows = np.bincount(self._child, total[self._end] - total[self._begin], len(self._make))
        for child in np.flatnonzero(rows).tolist():
            series = self._made.get(child)
            if series is None:
                series = self._made[child] = self._make[child]()
            series.inc(float(rows[child]))


def _list_problem_series_slots(column: Column) -> dict[str, list[tuple[int, int]]]:
    """The slots of each kind of problem, as ranges."""
    width = len(column.counts)
    slots = {"missing": [(width + 2, width + 3)]}
    if column.kind == "number":
        slots["out_of_range"] = [(width, width + 2)]
    elif column.has_all_values:
        slots["new_value"] = [(width, width + 1)]
    return slots


def _list_monitoring_metric_slots(column: Column, le: str, last: int) -> list[tuple[int, int]]:
    """The slots up to an upper end, or of a value."""
    width = len(column.counts)
    if not le:
        return [(last, last + 1)]
    return [(0, width + 2)] if le == "+Inf" else [(0, last + 1), (width, width + 1)]


def _list_series_upper_ends(column: Column) -> list[tuple[str, str, int]]:
    """The upper ends of a number as `(le, "", last bin)`, the values of a category as `("", value, index)`."""
    if column.kind == "category":
        return [("", value, at) for at, value in enumerate(column.values[:ENDS])]
    total, below = sum(column.counts), 0
    ends: list[tuple[str, str, int]] = []
    for at, count in enumerate(column.counts):
        below += count
        if below >= total * (len(ends) + 1) / ENDS and len(ends) < ENDS - 1 and at < len(column.counts) - 1:
            ends.append((f"{column.edges[at]:.6g}", "", at))
    return [*ends, ("+Inf", "", len(column.counts) - 1)]


def _get_or_create_metric(
    registry: CollectorRegistry, kind: Any, name: str, text: str, labels: list[str], **options: Any
) -> Any:
    """A metric of the registry, created at first use."""
    collectors = getattr(registry, "_names_to_collectors", {})
    return collectors.get(name) or kind(name, text, labels, registry=registry, **options)
