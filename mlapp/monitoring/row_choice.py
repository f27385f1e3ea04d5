"""Chooses the rows of answered batches to count and to log, so that the other rows do not stay in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from mlapp.monitoring.batch import (
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
from mlapp.monitoring.portion import Portion, find_packed_rows
from mlapp.monitoring.recorded_model import RecordedModel
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
        self, model: RecordedModel, requests: Sequence[Any], results: Sequence[Any], seconds: float, at: float
    ) -> list[RecordedBatch]:
        """Add a batch. Called on the request path. Returns the rows that are chosen now.

        Args:
            requests: the requests' features, in order.
            results: for each request its predictions, or an error.
            seconds: that the call of the model took.
            at: time of the answer, in seconds since 1970.
        """
        with self._lock:
            packed = find_packed_rows(requests, results)
            ids = () if self._log is None else [part.id for part in requests if part.keys is None]
            if packed is not None and (self._log is None or len(ids) == len(requests)):
                return self._gather_packed_rows(model, ids, *packed, seconds, at)
            chosen = self._close_portion()
            found = list_answered_rows(model, requests, results)
            if found is not None:
                requests, answered = found
                count = len(answered.predictions)
                names = None if self._log is None else name_requests(requests, count)
                chosen.append(self._choose_rows(model, names, answered, [(count, seconds, at)]))
            return chosen

    def choose_rest(self) -> list[RecordedBatch]:
        """Choose rows of the batches that are gathered."""
        with self._lock:
            return self._close_portion()

    def _gather_packed_rows(
        self,
        model: RecordedModel,
        ids: Sequence[bytes | None],
        packed: Any,
        predictions: Sequence[Any],
        seconds: float,
        at: float,
    ) -> list[RecordedBatch]:
        """Add a batch of packed features, with one row per request and no keys.

        Args:
            ids: of the requests, if rows are logged.
        """
        log, portion, chosen = self._log, self._portion, []
        is_logged = log is not None and not log.copy(model, packed, ids, predictions, seconds, at)
        if portion is None or not portion.is_for(model, at, is_logged=is_logged):
            chosen = self._close_portion()
            portion = self._portion = Portion(model, at, self._window, is_logged=is_logged)
        portion.add(packed, predictions, ids if is_logged else (), seconds, at)
        return chosen + self._close_portion() if portion.is_full else chosen

    def _close_portion(self) -> list[RecordedBatch]:
        portion, self._portion = self._portion, None
        if portion is None:
            return []
        names = RequestNames(portion.ids, None, None) if portion.is_logged else None
        return [self._choose_rows(portion.model, names, portion.list_rows(), portion.calls)]

    def _choose_rows(
        self, model: RecordedModel, names: RequestNames | None, answered: RecordedRows, calls: Sequence[Call]
    ) -> RecordedBatch:
        """Choose rows of calls in one window and hour.

        Args:
            names: of the requests; None if the log does not keep the rows.
        """
        count = len(answered.predictions)
        counted, logged, weight = NO_ROWS, None, 1
        if self._counts:
            places, weight = self.limit.draw_rows(id(model), count, len(model.feature_names), calls[-1][2])
            counted = answered if places is None else take_recorded_rows(answered, places)
        if self._log is not None and names is not None:
            logged = self._log.select(names, answered, calls)
        return RecordedBatch(model, calls[0][2], count, counted, weight, logged)
