"""Gathers the rows of small batches to count and to log, so that few objects reach the recorder's thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlapp.monitoring.batch import Call, JoinedResults, LoggedBatch, RecordedRows, RequestNames
from mlapp.monitoring.place import HOUR
from mlapp.monitoring.recorded_model import RecordedModel
from mlapp.monitoring.sampling import BITS

MOST_ROWS = 480
"""Rows of a full portion: NumPy releases the interpreter's lock (GIL) for operations on more than 500 numbers."""
MOST_BYTES = 262_144
"""Bytes of features in a full portion: they stay in the processor's cache until rows are chosen."""


class Portion:
    """Rows of one model in one window and hour, of batches with packed features and one row per request.

    Args:
        at: time of the first answer, in seconds since 1970.
        window: in seconds.
        weight: the number of rows that each counted row stands for.

    Attributes:
        since, until: the times of answers that belong to this portion.
        rows: number of all answered rows.
        counted, counted_predictions: the rows to count.
        ids: of the requests among which the log must choose.
        calls: the calls of the model that answered these.
        limit_bits: the rows of `list_chosen` whose hash is below this power of two are complete.
        is_full: whether the rows should be passed on now.
    """

    def __init__(self, model: RecordedModel, at: float, window: int, weight: int) -> None:
        self.model, self.at, self.weight = model, at, weight
        self.rows, self.is_full = 0, False
        self.since = max(at - at % window, at - at % HOUR)
        self.until = min(at - at % window + window, at - at % HOUR + HOUR)
        self.counted: list[Any] = []
        self.counted_predictions: list[Any] = []
        self.ids: list[bytes | None] = []
        self.calls: list[Call] = []
        self._packed: list[Any] = []
        self._predictions: list[Any] = []
        self._bytes = 0
        self.limit_bits = BITS
        self._chosen: list[Any] = []
        self._chosen_predictions: list[Any] = []
        self._chosen_ids: list[bytes] = []
        self._chosen_calls: list[Call] = []

    def add_counted(self, packed: Any, predictions: Sequence[Any]) -> None:
        """Add a batch of which all rows are counted."""
        self.counted.append(packed)
        self.counted_predictions += predictions
        self._bytes += len(packed)
        self._check_size()

    def add_counted_row(self, packed: Any, predictions: Sequence[Any], place: int) -> None:
        """Add one row of a batch to count, which stands for `weight` rows."""
        size = len(packed) // len(predictions)
        self.counted.append(bytes(packed[place * size : (place + 1) * size]))
        self.counted_predictions.append(predictions[place])
        self.is_full = self.is_full or len(self.counted) >= MOST_ROWS

    def add_logged(
        self, packed: Any, predictions: Sequence[Any], ids: Sequence[bytes | None], seconds: float, at: float
    ) -> None:
        """Add a batch among whose rows the log must choose."""
        self.ids += ids
        self._packed.append(packed)
        self._predictions += predictions
        self.calls.append((len(predictions), seconds, at))
        self._bytes += len(packed)
        self._check_size()

    def add_chosen_row(
        self, packed: Any, predictions: Sequence[Any], place: int, request_id: bytes, seconds: float, at: float
    ) -> None:
        """Add one row of a batch that a sample can keep."""
        size = len(packed) // len(predictions)
        self._chosen.append(bytes(packed[place * size : (place + 1) * size]))
        self._chosen_predictions.append(predictions[place])
        self._chosen_ids.append(request_id)
        self._chosen_calls.append((1, seconds, at))
        self.is_full = self.is_full or len(self._chosen) >= MOST_ROWS

    def _check_size(self) -> None:
        most = max(len(self.counted_predictions), len(self.ids))
        self.is_full = self.is_full or most >= MOST_ROWS or self._bytes >= MOST_BYTES

    def list_counted(self) -> RecordedRows:
        """The rows to count, in order."""
        return RecordedRows(self.counted, self.counted_predictions)

    def list_logged(self) -> RecordedRows:
        """The rows among which the log must choose: one piece per batch, because only the chosen rows are copied."""
        return RecordedRows(self._packed, self._predictions)

    def list_chosen(self) -> LoggedBatch | None:
        """The rows that a sample can keep; None if there are none."""
        if not self._chosen:
            return None
        names = RequestNames(self._chosen_ids, None, None)
        rows = RecordedRows(self._chosen, self._chosen_predictions)
        return LoggedBatch(names, rows, self._chosen_calls, None, self.limit_bits)


def find_packed_rows(requests: Sequence[Any], results: Sequence[Any]) -> tuple[Any, Sequence[Any]] | None:
    """The packed features of a batch in one piece, and its predictions; None unless each request has one row,
    packed, and the first has predictions.
    """
    parts: Sequence[Any] = requests
    if type(results) is JoinedResults:
        parts, predictions = results.parts, results.rows
    elif type(predictions := results[0]) is not list:  # an error, not predictions
        return None
    if len(parts) != 1 or len(predictions) != len(requests) or not (packed := parts[0].packed):
        return None
    return packed, predictions
