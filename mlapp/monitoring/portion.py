"""Gathers small batches, so that the rows to count and to log are chosen for several of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlapp.monitoring.batch import Call, JoinedResults, RecordedRows, RequestNames
from mlapp.monitoring.place import HOUR

MOST_ROWS = 512
MOST_BYTES = 262_144
"""Rows, and bytes of features, of a full portion: they stay in the processor's cache until rows are chosen, and the
choice holds the event loop for a fraction of a millisecond."""


class Portion:
    """Batches of one model in one window and hour, with packed features and one row per request.

    Args:
        at: time of the first answer, in seconds since 1970.
        window: in seconds.
        has_names: whether the ids of requests are gathered.

    Attributes:
        is_full: whether the rows should be chosen now.
    """

    def __init__(self, model: Any, at: float, window: int, *, has_names: bool) -> None:
        self.model, self.is_full = model, False
        self._since = max(at - at % window, at - at % HOUR)
        self._until = min(at - at % window + window, at - at % HOUR + HOUR)
        self._has_names = has_names
        self._calls: list[Call] = []
        self._ids: list[bytes | None] = []
        self._packed: list[Any] = []
        self._predictions: list[Any] = []
        self._bytes = 0

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._predictions)

    def is_for(self, model: Any, at: float) -> bool:
        """Whether answers of a model at a time belong to this portion."""
        return model is self.model and self._since <= at < self._until

    def add(self, requests: Sequence[Any], results: Sequence[Any], seconds: float, at: float) -> bool:
        """Add a batch. Returns whether it was added: each request has one row, none has keys, and the features are
        packed in one piece.
        """
        parts: Sequence[Any] = requests
        if type(results) is JoinedResults:
            parts, predictions = results.parts, results.rows
        elif type(predictions := results[0]) is not list:  # an error
            return False
        if len(parts) != 1 or len(predictions) != len(requests) or not (packed := parts[0].packed):
            return False
        if self._has_names:
            ids = [part.id for part in requests if part.keys is None]
            if len(ids) < len(requests):
                return False
            self._ids += ids
        self._packed.append(packed)
        self._bytes += len(packed)
        self._predictions += predictions
        self._calls.append((len(predictions), seconds, at))
        self.is_full = len(self._predictions) >= MOST_ROWS or self._bytes >= MOST_BYTES
        return True

    def list_rows(self) -> tuple[RequestNames, RecordedRows, list[Call]]:
        """The requests, rows and calls of all batches, in order."""
        rows = RecordedRows([b"".join(self._packed)], self._predictions)
        return RequestNames(self._ids, None, None), rows, self._calls
