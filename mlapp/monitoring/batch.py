"""Answered batches in the form in which the recorder queues them: few objects for many requests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from mlapp.monitoring.recorded_model import RecordedModel
from mlapp.monitoring.sampling import BITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

Call = tuple[int, float, float]
"""A call of a model: its number of rows, its seconds, and the time of the answer (since 1970)."""


FEW = 16
"""Rows up to which slices are faster than NumPy."""


class JoinedResults(Sequence[Any]):
    """The predictions of each request, of one call of a model that answered all of them.

    Args:
        parts: the features of the requests, joined where that is possible.
        rows: the predictions of all requests, in order.
        results: for each request its predictions; None if each has one.

    Attributes:
        has_single_rows: whether each request has one prediction.
    """

    def __init__(self, parts: Sequence[Any], rows: Sequence[Any], results: Sequence[Any] | None = None) -> None:
        self.parts, self.rows, self._results = parts, rows, results
        self.has_single_rows = results is None

    def __len__(self) -> int:
        return len(self.rows if self._results is None else self._results)

    def __getitem__(self, at: Any) -> Any:
        return [self.rows[at]] if self._results is None else self._results[at]


class RequestNames(NamedTuple):
    """The ids, rows and business keys of the requests of a batch, in order, for the log.

    Attributes:
        ids: of each request, or None.
        rows: of each request; None if each has one.
        keys: of each request; None if no request has keys.
    """

    ids: Sequence[bytes | None]
    rows: list[int] | None
    keys: list[Any] | None

    def take(self, places: Sequence[int]) -> RequestNames:
        """The requests of some rows; all of them if one has several rows."""
        if self.rows is not None:
            return self
        return RequestNames([self.ids[at] for at in places], None, self.keys and [self.keys[at] for at in places])


class RecordedRows(msgspec.Struct, gc=False):
    """Features and predictions of some rows of a batch.

    Attributes:
        parts: the features: joined, or from `strip_parts`.
        predictions: one per row.
        places: the indexes of these rows among those of the parts; None if they are all.
    """

    parts: Sequence[Any]
    predictions: Sequence[Any]
    places: Sequence[int] | None = None


class LoggedBatch(msgspec.Struct, gc=False):
    """The rows of a batch that can be logged.

    Attributes:
        requests: the requests of `rows`, or, if one has several rows, all requests of the batch.
        rows: the rows that can be logged, and `places` their indexes among those of `calls`; None if they are all.
        limit_bits: rows whose hash is below this power of two are complete.
    """

    requests: RequestNames
    rows: RecordedRows
    calls: Sequence[Call]
    places: Sequence[int] | None = None
    limit_bits: int = BITS


class RecordedBatch(msgspec.Struct, gc=False):
    """One or more calls of a model in one window and hour, with the rows of them to count and to log.

    Attributes:
        at: time of the first answer, in seconds since 1970.
        rows: number of all answered rows.
        counted: the rows to count, each of which stands for `weight` rows.
    """

    model: RecordedModel
    at: float
    rows: int
    counted: RecordedRows
    weight: int
    logged: LoggedBatch | None

    @property
    def waiting(self) -> int:
        """Number of rows that it keeps in memory."""
        return max(len(self.counted.predictions), 0 if self.logged is None else len(self.logged.rows.predictions))


NO_ROWS = RecordedRows((), ())


def list_answered_rows(
    model: RecordedModel, parts: Sequence[Any], results: Sequence[Any]
) -> tuple[Sequence[Any], RecordedRows] | None:
    """The requests of a batch that were answered with predictions, and their rows; None if there are none.

    Args:
        results: the predictions, or an error, of each part.
    """
    if isinstance(results, JoinedResults):
        return parts, RecordedRows(results.parts, results.rows)
    try:
        predictions = list(chain.from_iterable(results))
    except TypeError:  # an error is no list
        answered = [pair for pair in zip(parts, results, strict=True) if isinstance(pair[1], Sequence)]
        if not answered:
            return None
        parts = [part for part, _ in answered]
        predictions = list(chain.from_iterable([result for _, result in answered]))
    return parts, RecordedRows(model.strip_parts(parts), predictions)


def take_recorded_rows(rows: RecordedRows, places: Sequence[int]) -> RecordedRows:
    """Copies of some rows if possible, so that the other rows do not stay in memory.

    Args:
        places: indexes.
    """
    if not places:
        return NO_ROWS
    predictions = [rows.predictions[at] for at in places]
    parts, count = rows.parts, len(rows.predictions)
    if len(parts) == count:
        return RecordedRows([parts[at] for at in places], predictions)
    pieces = [getattr(part, "packed", part) for part in parts]
    if all(isinstance(piece, (bytes, memoryview)) for piece in pieces):
        return RecordedRows([_take_from_pieces(pieces, count, places)], predictions)
    return RecordedRows(parts, predictions, places)


def take_packed_rows(packed: Any, count: int, places: Sequence[int]) -> bytes:
    """Copies of some of so many rows.

    Args:
        places: indexes, in order; at least one.
    """
    size = len(packed) // count
    if len(places) == 1:
        start = places[0] * size
        return bytes(packed[start : start + size])
    if len(places) > FEW:
        return np.frombuffer(packed, dtype=np.uint8).reshape(count, -1)[places].tobytes()
    return b"".join([packed[at * size : at * size + size] for at in places])


def _take_from_pieces(pieces: Sequence[Any], count: int, places: Sequence[int]) -> bytes:
    """Some of so many rows in pieces, each of which has one row or more.

    Args:
        places: indexes, in order.
    """
    if len(pieces) == 1:
        return take_packed_rows(pieces[0], count, places)
    size, rest, start = sum(map(len, pieces)) // count, iter(pieces), 0
    found, piece = [], next(rest)
    for at in places:
        while (offset := at * size - start) >= len(piece):
            start += len(piece)
            piece = next(rest)
        found.append(piece[offset : offset + size])
    return b"".join(found)


def name_requests(requests: Sequence[Any], rows: int) -> RequestNames:
    """The log's data of requests with so many rows."""
    ids = [part.id for part in requests if part.keys is None]
    keys = None
    if len(ids) < len(requests):
        ids, keys = [part.id for part in requests], [part.keys for part in requests]
    return RequestNames(ids, None if len(requests) == rows else [part.rows for part in requests], keys)


def expand_calls(calls: Sequence[Call]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The seconds of the call, and the time of the answer, of each row. The arrays are read-only."""
    if len(calls) == 1:
        ((rows, seconds, at),) = calls
        return np.broadcast_to(np.float64(seconds), rows), np.broadcast_to(np.float64(at), rows)
    counts, all_seconds, times = zip(*calls, strict=True)
    return np.repeat(all_seconds, counts), np.repeat(times, counts)
