"""Counts answered batches and refused requests in the open windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mlapp.errors import Problem
from mlapp.monitoring.answered_rows import AnsweredRows
from mlapp.monitoring.batch import RecordedBatch
from mlapp.monitoring.live_windows import LiveWindows
from mlapp.monitoring.metrics import MonitorMetrics

OTHER = "other"
"""The series of all refused fields that are not features: clients can invent such names without end."""


class AnswerCounts:
    """Adds answers and refusals to the counts of windows. Not thread-safe."""

    def __init__(self, windows: LiveWindows, metrics: MonitorMetrics) -> None:
        self._windows, self._metrics = windows, metrics
        self._fields: dict[str, frozenset[str]] = {}

    def set_version_fields(self, version: str, fields: frozenset[str]) -> None:
        """Count the refusals of a version's fields."""
        self._fields[version] = fields

    def count_batches(self, batches: Sequence[RecordedBatch], answered: AnsweredRows, weight: int) -> None:
        """Count batches of one model and window.

        Args:
            answered: the rows of the batches to count, each of which stands for `weight` rows.
        """
        version, rows = answered.model.version or "unsaved", sum(batch.rows for batch in batches)
        live = self._windows.open_window(version, batches[0].at)
        self._metrics.count_rows(version, rows)
        if not (live.counter.features or live.counter.predictions):
            live.counts.rows += rows
            return
        live.counts.add_rows(rows, [(len(answered), weight)])
        if not len(answered):
            return
        if live.counter.features:
            live.counter.add_features(answered.features, weight)
        if live.counter.predictions:
            live.counter.add_answers(answered.predictions, weight)
        self._metrics.uncounted.inc(rows - len(answered))

    def count_refused_request(self, version: str, at: float, problems: Sequence[Problem]) -> None:
        """Count a request that did not fit the schema."""
        live = self._windows.open_window(version, at)
        known_fields = self._fields.get(version, ())
        names = ((problem.field or "inputs", problem.row) for problem in problems)
        refusals = {(name if name in known_fields else OTHER, row) for name, row in names}
        live.counts.refused += max(1, len({row for _, row in refusals}))
        fields = Counter(name for name, _ in refusals)
        for field, count in fields.items():
            live.counts.fields[field] = live.counts.fields.get(field, 0) + count
        self._metrics.count_refused_rows(version, fields)
