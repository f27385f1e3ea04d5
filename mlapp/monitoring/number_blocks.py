"""Collects rows of numbers for the log, column by column, as their batches are answered.

A batch that was answered just now is in the processor's cache: there its cells are copied at a fraction of the cost of
a second later, and its own memory is free for the next batch.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from mlapp.monitoring.answered_rows import LoggedRows
from mlapp.monitoring.batch import Call, RecordedRows, expand_calls
from mlapp.monitoring.counts import is_block
from mlapp.monitoring.place import HOUR

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAD = 8
"""Cells between two columns: at a distance of a power of two they would share the same lines of the cache."""
MOST_BLOCKS = 4
"""Full blocks that may wait."""


class NumberBlock:
    """Rows of one model and hour, of numbers of one type.

    Attributes:
        rows: number of rows so far.
    """

    def __init__(self, model: Any, hour: int, capacity: int, dtype: np.dtype[Any]) -> None:
        self.model, self.hour, self.capacity, self.rows = model, hour, capacity, 0
        self._cells: NDArray[Any] = np.empty((len(model.feature_names), capacity + PAD), dtype)
        self._ids: list[bytes] = []
        self._predictions: list[Any] = []
        self._calls: NDArray[np.float64] = np.empty((2, capacity))

    def add(
        self, cells: NDArray[Any], ids: Sequence[bytes], predictions: Sequence[Any], *calls: NDArray[np.float64]
    ) -> None:
        """Add rows, for which there is room.

        Args:
            calls: of each row, the seconds of its call, and the time of its answer.
        """
        start, self.rows = self.rows, self.rows + len(cells)
        self._cells[:, start : self.rows] = cells.T
        self._ids += ids
        self._predictions += predictions
        for row, column in zip(self._calls, calls, strict=True):
            row[start : self.rows] = column

    def list_rows(self) -> LoggedRows:
        """The rows. Their features are views of columns in one piece."""
        seconds, times = self._calls[:, : self.rows]
        return LoggedRows(
            self._cells[:, : self.rows].T,
            self._predictions,
            self._ids,
            np.zeros(self.rows, dtype=np.int64),
            None,
            [],
            seconds,
            times,
            np.ones(self.rows, dtype=np.float32),
        )


class NumberBlocks:
    """The open block of one log, and those that are full. Thread-safe.

    Args:
        cells: of features in a block.
    """

    def __init__(self, cells: int) -> None:
        self._cells = cells
        self._lock = threading.Lock()
        self._open: NumberBlock | None = None
        self._full: deque[NumberBlock] = deque()
        self._dtypes: WeakKeyDictionary[Any, np.dtype[Any] | None] = WeakKeyDictionary()

    @property
    def has_full(self) -> bool:
        """Whether there is a full block."""
        return bool(self._full)

    def add(self, model: Any, rows: RecordedRows, ids: Sequence[bytes], calls: Sequence[Call]) -> bool:
        """Add the rows of calls in one hour, one of each request, if they are packed numbers of one type.

        Returns:
            Whether they were added.
        """
        packed = getattr(rows.parts[0], "packed", rows.parts[0]) if len(rows.parts) == 1 else None
        if not packed or len(self._full) >= MOST_BLOCKS:
            return False
        if model not in self._dtypes:
            self._dtypes[model] = _find_packed_type(model, packed, len(rows.predictions))
        dtype = self._dtypes[model]
        if dtype is None:
            return False
        cells = np.frombuffer(packed, dtype).reshape(len(rows.predictions), -1)
        seconds, times = expand_calls(calls)
        hour, start = int(times[0] // HOUR), 0
        with self._lock:
            while start < len(cells):
                block = self._open
                if block is None or block.model is not model or block.hour != hour or block.rows == block.capacity:
                    self._close_block()
                    capacity = max(1, self._cells // cells.shape[1])
                    block = self._open = NumberBlock(model, hour, capacity, dtype)
                end = start + block.capacity - block.rows
                piece = slice(start, end)
                block.add(cells[piece], ids[piece], rows.predictions[piece], seconds[piece], times[piece])
                start = end
            if self._open is not None and self._open.rows == self._open.capacity:
                self._close_block()
        return True

    def take(self, *, is_all: bool) -> list[NumberBlock]:
        """The full blocks, and the open one if all are taken."""
        with self._lock:
            if is_all:
                self._close_block()
            found = list(self._full)
            self._full.clear()
        return found

    def _close_block(self) -> None:
        if self._open is not None:
            self._full.append(self._open)
            self._open = None


def _find_packed_type(model: Any, packed: Any, rows: int) -> np.dtype[Any] | None:
    """The type of a model's packed cells; None if they are of several types, or not of its features in order."""
    features = model.combine_stripped([bytes(packed)])
    if hasattr(features, "columns"):
        if not is_block(features):
            return None
        features = features.to_numpy()
    if not isinstance(features, np.ndarray) or features.size != rows * len(model.feature_names):
        return None
    return features.dtype if features.tobytes() == bytes(packed) else None
