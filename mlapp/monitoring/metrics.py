"""What Prometheus scrapes of monitoring.

`mlapp_feature_rows_total` is a histogram whose upper ends are quantiles of the training data: a rule adds it up over
all pods, and compares it with `mlapp_feature_baseline_ratio`, the training data's own share below each end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client import Counter as Total

from mlapp.baseline import Baseline, Column
from mlapp.monitoring.counts import Counts
from mlapp.monitoring.drift import distances

ENDS = 10
"""Upper ends, or values of a category, that a column has in Prometheus."""
MOST_COLUMNS = 64
"""Columns that have series."""


class MonitorMetrics:
    """The series of one app.

    Args:
        model: the app's name.
    """

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        self._model = model
        self._rows = _once(
            registry, Total, "mlapp_monitored_rows_total", "Rows that were predicted.", ["model", "version"]
        )
        self._features = _once(
            registry,
            Total,
            "mlapp_feature_rows_total",
            "Rows whose value is at most `le`, or is `value`; of features and predictions.",
            ["model", "version", "feature", "le", "value"],
        )
        self._baseline = _once(
            registry,
            Gauge,
            "mlapp_feature_baseline_ratio",
            "The same as a share of the training rows.",
            ["model", "version", "feature", "le", "value"],
            multiprocess_mode="livemostrecent",
        )
        self._missing = _once(
            registry,
            Gauge,
            "mlapp_feature_baseline_missing_ratio",
            "Share of the training rows in which the feature is missing.",
            ["model", "version", "feature"],
            multiprocess_mode="livemostrecent",
        )
        self._problems = _once(
            registry,
            Total,
            "mlapp_feature_problems_total",
            "Rows with a missing, new or out-of-range value, or that were refused for the field.",
            ["model", "version", "feature", "kind"],
        )
        self._distance = _once(
            registry,
            Gauge,
            "mlapp_feature_drift_distance",
            "Kolmogorov-Smirnov or Jensen-Shannon distance from training, of this process' open window.",
            ["model", "version", "feature"],
            multiprocess_mode="livemostrecent",
        )
        self.logged = _once(
            registry, Total, "mlapp_log_rows_total", "Rows written to the prediction log.", ["model"]
        ).labels(model)
        self.dropped = _once(
            registry, Total, "mlapp_monitor_dropped_rows_total", "Rows that were not recorded.", ["model"]
        ).labels(model)
        self._ends: dict[str, dict[str, list[tuple[str, str, int]]]] = {}
        self._seen: dict[str, tuple[float, dict[str, list[int]]]] = {}

    def watch(self, version: str, baseline: Baseline) -> None:
        """Expose the shares of a version's baseline."""
        ends: dict[str, list[tuple[str, str, int]]] = {}
        for column in (*baseline.features, *baseline.predictions)[:MOST_COLUMNS]:
            known = column.rows - column.missing
            if column.kind == "text" or not known:
                continue
            ends[column.name] = _ends(column)
            self._missing.labels(self._model, version, column.name).set(column.missing / column.rows)
            for le, value, last in ends[column.name]:
                below = sum(column.counts[: last + 1]) if le else column.counts[last]
                self._baseline.labels(self._model, version, column.name, le, value).set(below / known)
        self._ends[version] = ends

    def rows(self, version: str, rows: int) -> None:
        """So many rows were predicted."""
        self._rows.labels(self._model, version).inc(rows)

    def refused(self, version: str, fields: Mapping[str, int]) -> None:
        """So many rows were refused, for each field."""
        for field, count in fields.items():
            self._problems.labels(self._model, version, field, "refused").inc(count)

    def drift(self, version: str, baseline: Baseline | None, counts: Counts) -> None:
        """Bring the series of a version up to date with the counts of its open window."""
        if baseline is None or (not baseline.features and not baseline.predictions):
            return
        for name, distance in distances(baseline, counts).items():
            self._distance.labels(self._model, version, name).set(distance)
        since, before = self._seen.get(version, (counts.since, {}))
        if since != counts.since:
            before = {}
        self._seen[version] = (counts.since, counts.columns)
        columns = {column.name: column for column in (*baseline.features, *baseline.predictions)}
        for name, now in counts.columns.items():
            old = before.get(name)
            new = now if old is None else [a - b for a, b in zip(now, old, strict=True)]
            if any(new):
                self._count(version, columns[name], new)

    def _count(self, version: str, column: Column, new: list[int]) -> None:
        for kind, count in _problems(column, new).items():
            if count:
                self._problems.labels(self._model, version, column.name, kind).inc(count)
        for le, value, last in self._ends.get(version, {}).get(column.name, ()):
            rows = sum(new[: last + 1]) + new[-3] if le else new[last]
            if le == "+Inf":
                rows = sum(new[:-1])
            if rows:
                self._features.labels(self._model, version, column.name, le, value).inc(rows)


def _problems(column: Column, counts: list[int]) -> dict[str, int]:
    found = {"missing": counts[-1]}
    if column.kind == "number":
        found["out_of_range"] = counts[-3] + counts[-2]
    elif column.has_all_values:
        found["new_value"] = counts[-3]
    return found


def _ends(column: Column) -> list[tuple[str, str, int]]:
    """The upper ends of a number as `(le, "", last bin)`, the values of a category as `("", value, its place)`."""
    if column.kind == "category":
        return [("", value, at) for at, value in enumerate(column.values[:ENDS])]
    total, below = sum(column.counts), 0
    found: list[tuple[str, str, int]] = []
    for at, count in enumerate(column.counts):
        below += count
        if below >= total * (len(found) + 1) / ENDS and len(found) < ENDS - 1 and at < len(column.counts) - 1:
            found.append((f"{column.edges[at]:.6g}", "", at))
    return [*found, ("+Inf", "", len(column.counts) - 1)]


def _once(registry: CollectorRegistry, kind: Any, name: str, text: str, labels: list[str], **options: Any) -> Any:
    """A metric of the registry, made when the first app asks for it."""
    known = getattr(registry, "_names_to_collectors", {})
    return known.get(name) or kind(name, text, labels, registry=registry, **options)
