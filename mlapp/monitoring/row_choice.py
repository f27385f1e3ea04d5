"""Chooses the rows of answered batches to count and to log, so that the other rows do not stay in memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from mlapp.monitoring.batch import (
    NO_ROWS,
    RecordedBatch,
    RecordedRows,
    RequestNames,
    list_answered_rows,
    name_requests,
    take_recorded_rows,
)
from mlapp.monitoring.count_limit import CountLimit
from mlapp.monitoring.portion import MOST_BYTES, MOST_ROWS, Portion, find_packed_rows
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
        self._weight = 1
        self._row = self._drawn_end = 0
        """Number of gathered rows, and of those of which the rows to count are drawn."""
        self._drawn: deque[int] = deque()
        """Numbers of the next rows to count, unless all are."""
        self._drawn_model: RecordedModel | None = None
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
            if packed is not None and self._log is None:
                return self._gather_packed_rows(model, requests, None, (), *packed, seconds, at)
            if packed is not None and self._log is not None:
                own = self._log.find_own_rows(requests[0], requests[-1], len(requests))
                ids = [part.id for part in requests if part.keys is None] if own is None else ()
                if own is not None or len(ids) == len(requests):
                    return self._gather_packed_rows(model, requests, own, ids, *packed, seconds, at)
            chosen = self._close_portion()
            found = list_answered_rows(model, requests, results)
            if found is not None:
                requests, answered = found
                chosen.append(self._choose_rows(model, requests, answered, seconds, at))
            return chosen

    def choose_rest(self) -> list[RecordedBatch]:
        """Choose rows of the batches that are gathered."""
        with self._lock:
            return self._close_portion()

    def _gather_packed_rows(
        self,
        model: RecordedModel,
        requests: Sequence[Any],
        own: tuple[list[int], int] | None,
        ids: Sequence[bytes | None],
        packed: Any,
        predictions: Sequence[Any],
        seconds: float,
        at: float,
    ) -> list[RecordedBatch]:
        """Add a batch of packed features, with one row per request and no keys.

        Args:
            own: the result of `RowLog.find_own_rows`.
            ids: of the requests, if rows are logged and `own` is None.
        """
        portion, count = self._portion, len(predictions)
        chosen: list[RecordedBatch] = []
        if portion is None or model is not portion.model or not portion.since <= at < portion.until:
            chosen, portion = self._replace_portion(model, at)
        if self._counts:
            start = self._row
            if start + count > self._drawn_end or model is not self._drawn_model:
                self._draw_rows(model, count, len(packed) // count, at)
                if self._weight != portion.weight:
                    earlier, portion = self._replace_portion(model, at)
                    chosen += earlier
            self._row = end = start + count
            if portion.weight == 1:
                portion.add_counted(packed, predictions)
            else:
                while self._drawn and self._drawn[0] < end:
                    portion.add_counted_row(packed, predictions, self._drawn.popleft() - start)
        portion.rows += count
        if own is not None:
            places, bits = own
            portion.limit_bits = min(portion.limit_bits, bits)
            for place in places:
                portion.add_chosen_row(packed, predictions, place, requests[place].id, seconds, at)
        elif self._log is not None and not self._log.copy(model, packed, ids, predictions, seconds, at):
            portion.add_logged(packed, predictions, ids, seconds, at)
        return chosen + self._close_portion() if portion.is_full else chosen

    def _replace_portion(self, model: RecordedModel, at: float) -> tuple[list[RecordedBatch], Portion]:
        """The rows of the open portion, and a new one."""
        chosen = self._close_portion()
        portion = self._portion = Portion(model, at, self._window, self._weight)
        return chosen, portion

    def _draw_rows(self, model: RecordedModel, count: int, size: int, at: float) -> None:
        """Draw the rows to count of a batch, and, if not all rows are counted, those of the next batches.

        Args:
            count: rows of the batch.
            size: bytes of a row.
        """
        rest, ahead, columns = self._drawn_end - self._row, count, len(model.feature_names)
        if model is not self._drawn_model:
            if rest and self._drawn_model is not None:
                self.limit.return_rows(rest, len(self._drawn_model.feature_names))
            rest = 0
        elif self._weight > 1:
            ahead = max(count, min(MOST_ROWS, MOST_BYTES // max(1, size)))
        places, weight = self.limit.draw_rows(id(model), ahead, columns, at)
        if not rest or weight != self._weight:
            self._drawn.clear()
            rest = 0
        first = self._row + rest
        self._drawn.extend([first + place for place in places or ()])
        self._drawn_end = first + ahead
        self._drawn_model, self._weight = model, weight

    def _close_portion(self) -> list[RecordedBatch]:
        portion, self._portion = self._portion, None
        if portion is None or not portion.rows:
            return []
        counted, logged = portion.list_counted(), portion.list_chosen()
        chosen = [RecordedBatch(portion.model, portion.at, portion.rows, counted, portion.weight, logged)]
        if self._log is not None and portion.ids:
            rows = portion.list_logged()
            if len(rows.predictions) == len(counted.predictions) == portion.rows:
                rows = counted  # joined once
            selected = self._log.select(RequestNames(portion.ids, None, None), rows, portion.calls)
            if logged is None:
                chosen[0].logged = selected
            elif selected is not None:
                chosen.append(RecordedBatch(portion.model, portion.at, 0, NO_ROWS, portion.weight, selected))
        return chosen

    def _choose_rows(
        self, model: RecordedModel, requests: Sequence[Any], answered: RecordedRows, seconds: float, at: float
    ) -> RecordedBatch:
        """Choose rows of one call."""
        count = len(answered.predictions)
        counted, logged, weight = NO_ROWS, None, 1
        if self._counts:
            places, weight = self.limit.draw_rows(id(model), count, len(model.feature_names), at)
            counted = answered if places is None else take_recorded_rows(answered, places)
        if self._log is not None:
            logged = self._log.select(name_requests(requests, count), answered, [(count, seconds, at)])
        return RecordedBatch(model, at, count, counted, weight, logged)
