"""Collects rows of numbers for the log, column by column, when their batches are answered.

A batch that has just been answered is still in the processor's cache. Copying its cells then costs a fraction of what
it costs a second later, and frees the batch's memory for the next batch.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from mlapp.monitoring.answered_rows import LoggedRows
from mlapp.monitoring.batch import Call, expand_calls
from mlapp.monitoring.counts import has_uniform_numbers
from mlapp.monitoring.number_segments import make_number_array
from mlapp.monitoring.place import HOUR
from mlapp.monitoring.plain_parquet import EncodedTexts, encode_texts
from mlapp.monitoring.recorded_model import RecordedModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

AT_ONCE = 480
"""Ids and predictions that are encoded at once: NumPy gives the interpreter back for more than 500 numbers."""
PAD = 8
"""Cells between two columns. At a distance of a power of two, columns would share the same lines of the cache."""
MOST_BLOCKS = 4
"""Maximum full blocks that wait to be written."""


class NumberBlock:
    """Rows of one model and hour, of numbers of one type.

    Attributes:
        rows: number of rows so far.
    """

    def __init__(self, model: RecordedModel, hour: int, capacity: int, dtype: np.dtype[Any]) -> None:
        self.model, self.hour, self.capacity, self.dtype, self.rows = model, hour, capacity, dtype, 0
        self._cells: NDArray[Any] = np.empty((len(model.feature_names), capacity + PAD), dtype)
        self._calls: list[Call] = []
        self._ids: list[bytes] = []
        self._predictions: list[Any] = []
        self._encoded_ids: list[bytes] = []
        self._encoded_predictions: list[NDArray[Any] | list[Any]] = []

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another row."""
        return self.rows == self.capacity

    def add(
        self, cells: NDArray[Any], ids: Sequence[bytes], predictions: Sequence[Any], seconds: float, at: float
    ) -> None:
        """Add the rows of a call, for which there is room."""
        start, self.rows = self.rows, self.rows + len(cells)
        self._cells[:, start : self.rows] = cells.T
        self._calls.append((len(cells), seconds, at))
        self._ids += ids
        self._predictions += predictions
        if len(self._ids) >= AT_ONCE:
            self._encode_rows()

    def list_rows(self) -> LoggedRows:
        """The rows. Their features are views of columns in one piece."""
        self._encode_rows()
        seconds, times = expand_calls(self._calls)
        return LoggedRows(
            self._cells[:, : self.rows].T,
            _join_predictions(self._encoded_predictions),
            EncodedTexts(self._encoded_ids),
            np.zeros(self.rows, dtype=np.int64),
            None,
            [],
            seconds,
            times,
            np.ones(self.rows, dtype=np.float32),
        )

    def _encode_rows(self) -> None:
        """Replace the objects of some rows by their bytes: for all rows of a block, the thread would hold the
        interpreter for a millisecond.
        """
        if self._ids:
            self._encoded_ids.append(encode_texts(self._ids))
            array = make_number_array(self._predictions)
            self._encoded_predictions.append(self._predictions if array is None else array)
            self._ids, self._predictions = [], []


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

    def add(
        self,
        model: RecordedModel,
        packed: Any,
        ids: Sequence[bytes],
        predictions: Sequence[Any],
        seconds: float,
        at: float,
    ) -> bool:
        """Add the rows of a call, one of each request, if they are packed numbers of one type.

        Returns:
            Whether they were added.
        """
        count, hour = len(ids), int(at // HOUR)
        with self._lock:
            block = self._open
            if block is None or block.model is not model or block.hour != hour:
                block = self._open_block(model, hour, packed, count)
                if block is None:
                    return False
            cells, start = np.frombuffer(packed, block.dtype).reshape(count, -1), 0
            while start < count:
                if block.is_full:
                    block = self._replace_full_block(block)
                end = start + block.capacity - block.rows
                block.add(cells[start:end], ids[start:end], predictions[start:end], seconds, at)
                start = end
            if block.is_full:
                self._close_block()
        return True

    def _open_block(self, model: RecordedModel, hour: int, packed: Any, count: int) -> NumberBlock | None:
        """Open a block for the rows of a call; None if they cannot be in one."""
        self._close_block()
        if len(self._full) >= MOST_BLOCKS:
            return None
        if model not in self._dtypes:
            self._dtypes[model] = _find_packed_type(model, packed, count)
        dtype = self._dtypes[model]
        if dtype is None:
            return None
        capacity = max(1, self._cells // max(1, len(model.feature_names)))
        self._open = NumberBlock(model, hour, capacity, dtype)
        return self._open

    def _replace_full_block(self, block: NumberBlock) -> NumberBlock:
        self._close_block()
        self._open = NumberBlock(block.model, block.hour, block.capacity, block.dtype)
        return self._open

    def take(self, *, is_all: bool) -> list[NumberBlock]:
        """The full blocks, and the open one if all are taken."""
        with self._lock:
            if is_all:
                self._close_block()
            blocks = list(self._full)
            self._full.clear()
        return blocks

    def _close_block(self) -> None:
        if self._open is not None:
            self._full.append(self._open)
            self._open = None


def _join_predictions(chunks: Sequence[NDArray[Any] | list[Any]]) -> Sequence[Any] | NDArray[Any]:
    """An array if all are of one type."""
    kinds = {chunk.dtype if isinstance(chunk, np.ndarray) else None for chunk in chunks}
    if len(kinds) == 1 and None not in kinds:
        return np.concatenate(chunks)
    return list(chain.from_iterable([chunk.tolist() if isinstance(chunk, np.ndarray) else chunk for chunk in chunks]))


def _find_packed_type(model: RecordedModel, packed: Any, rows: int) -> np.dtype[Any] | None:
    """The type of a model's packed cells; None if they are of several types, or not of its features in order."""
    features = model.combine_stripped([bytes(packed)])
    if hasattr(features, "columns"):
        if not has_uniform_numbers(features):
            return None
        features = features.to_numpy()
    if not isinstance(features, np.ndarray) or features.size != rows * len(model.feature_names):
        return None
    return features.dtype if features.tobytes() == bytes(packed) else None
