"""Chooses the rows to count and to log of answered batches, so that the others do not stay in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from mlapp.monitoring.batch import (
    NO_NAMES,
    NO_ROWS,
    Call,
    RecordedBatch,
    RecordedRows,
    RequestNames,
    list_answered_rows,
    name_requests,
    take_recorded_rows,
)
from mlapp.monitoring.count_limit import CountLimit
from mlapp.monitoring.portion import Portion
from mlapp.monitoring.row_log import RowLog


class RowChoice:
    """Gathers small batches and chooses rows of several at once; of other batches it chooses rows at once. Thread-safe.

    Args:
        window: in seconds.
        log: selects the rows to log; None to log none.
        counts: whether rows are counted.
    """

    def __init__(self, window: int, log: RowLog | None, *, counts: bool) -> None:
        self._window, self._log, self._counts = window, log, counts
        self.limit = CountLimit()
        self._portion: Portion | None = None
        self._lock = threading.Lock()

    def add(
        self, model: Any, requests: Sequence[Any], results: Sequence[Any], seconds: float, at: float
    ) -> list[RecordedBatch]:
        """Add a batch. Called on the request path. Returns the rows that are chosen now.

        Args:
            requests: the requests' features, in order.
            results: for each request its predictions, or an error.
            seconds: that the call of the model took.
            at: time of the answer, in seconds since 1970.
        """
        with self._lock:
            chosen: list[RecordedBatch] = []
            portion = self._portion
            if portion is None or not portion.is_for(model, at):
                chosen = self._close_portion()
                portion = self._portion = Portion(model, at, self._window, has_names=self._log is not None)
            if portion.add(requests, results, seconds, at):
                return chosen + self._close_portion() if portion.is_full else chosen
            found = list_answered_rows(model, requests, results)
            if found is None:
                return chosen
            requests, answered = found
            count = len(answered.predictions)
            names = NO_NAMES if self._log is None else name_requests(requests, count)
            return [*chosen, self._choose_rows(model, names, answered, [(count, seconds, at)])]

    def choose_rest(self) -> list[RecordedBatch]:
        """Choose rows of the batches that are gathered."""
        with self._lock:
            return self._close_portion()

    def _close_portion(self) -> list[RecordedBatch]:
        portion, self._portion = self._portion, None
        return [self._choose_rows(portion.model, *portion.list_rows())] if portion else []

    def _choose_rows(self, model: Any, names: RequestNames, answered: RecordedRows, calls: list[Call]) -> RecordedBatch:
        """Choose rows of calls in one window and hour."""
        count = len(answered.predictions)
        counted, logged, weight = NO_ROWS, None, 1
        if self._counts:
            places, weight = self.limit.draw_rows(id(model), count, len(model.feature_names), calls[-1][2])
            counted = answered if places is None else take_recorded_rows(answered, places)
        if self._log is not None:
            logged = self._log.select(model, names, answered, calls)
        waiting = max(len(counted.predictions), 0 if logged is None else len(logged.rows.predictions))
        return RecordedBatch(model, count, counted, weight, logged, calls, waiting)
