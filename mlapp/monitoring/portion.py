"""Gathers small batches, so that the rows to count and to log are chosen from several batches at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlapp.monitoring.batch import Call, JoinedResults, RecordedRows
from mlapp.monitoring.place import HOUR
from mlapp.monitoring.recorded_model import RecordedModel

MOST_ROWS = 480
"""Rows of a full portion: NumPy releases the interpreter's lock (GIL) for operations on more than 500 numbers."""
MOST_BYTES = 262_144
"""Bytes of features in a full portion: they stay in the processor's cache until rows are chosen."""


class Portion:
    """Batches of one model in one window and hour, with packed features and one row per request.

    Args:
        at: time of the first answer, in seconds since 1970.
        window: in seconds.
        is_logged: whether the log may keep these rows.

    Attributes:
        ids: of the requests, if the log may keep the rows.
        calls: the calls of the model that answered them.
        is_full: whether the rows should be chosen now.
    """

    def __init__(self, model: RecordedModel, at: float, window: int, *, is_logged: bool) -> None:
        self.model, self.is_logged, self.is_full = model, is_logged, False
        self.ids: list[bytes | None] = []
        self.calls: list[Call] = []
        self._since = max(at - at % window, at - at % HOUR)
        self._until = min(at - at % window + window, at - at % HOUR + HOUR)
        self._packed: list[Any] = []
        self._predictions: list[Any] = []
        self._bytes = 0

    def is_for(self, model: RecordedModel, at: float, *, is_logged: bool) -> bool:
        """Whether answers of a model at a time belong to this portion."""
        return model is self.model and self._since <= at < self._until and is_logged is self.is_logged

    def add(
        self, packed: Any, predictions: Sequence[Any], ids: Sequence[bytes | None], seconds: float, at: float
    ) -> None:
        """Add a batch.

        Args:
            ids: empty if the log does not keep the rows.
        """
        self.ids += ids
        self._packed.append(packed)
        self._predictions += predictions
        self.calls.append((len(predictions), seconds, at))
        self._bytes += len(packed)
        self.is_full = len(self._predictions) >= MOST_ROWS or self._bytes >= MOST_BYTES

    def list_rows(self) -> RecordedRows:
        """The rows of all batches, in order: one piece per batch, because only the chosen rows are copied."""
        return RecordedRows(self._packed, self._predictions)


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
