"""The rows of answered batches, joined once for both counting and the log, and the rows to log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlapp.monitoring.batch import LoggedBatch, RecordedBatch, RecordedRows, expand_calls
from mlapp.monitoring.recorded_model import RecordedModel
from mlapp.schema.feature_containers import take_feature_rows
from mlapp.schema.part import Part

if TYPE_CHECKING:
    from numpy.typing import NDArray


class AnsweredRows:
    """Some rows of answered batches of one model, in order.

    Args:
        pieces: the rows of each batch.

    Attributes:
        sizes: the number of rows of each batch.
    """

    def __init__(self, model: RecordedModel, pieces: Sequence[RecordedRows]) -> None:
        self.model, self._pieces = model, pieces
        self.sizes = [len(piece.predictions) for piece in pieces]

    def __len__(self) -> int:
        return sum(self.sizes)

    @cached_property
    def predictions(self) -> list[Any]:
        """The prediction of each row."""
        return list(chain.from_iterable([piece.predictions for piece in self._pieces]))

    @cached_property
    def features(self) -> Any:
        """The features of all rows as one table, array or list."""
        if all(piece.places is None for piece in self._pieces):
            return self.model.combine_stripped(list(chain.from_iterable([piece.parts for piece in self._pieces])))
        # Some parts cannot be split, so the rows of each piece are selected from its joined parts.
        parts = []
        for piece in self._pieces:
            features = self.model.combine_stripped(list(piece.parts))
            if piece.places is not None:
                features = take_rows(features, np.asarray(piece.places))
            parts.append(Part(len(piece.predictions), features=features))
        return self.model.combine_stripped(parts)


class Requests(NamedTuple):
    """The requests of some batches, in order.

    Attributes:
        ids: of each request.
        counts: the number of rows of each request; None if each has one.
        keys: the business keys of each request; empty if none has any.
    """

    ids: list[bytes]
    counts: NDArray[np.int64] | None
    keys: list[Any]


class LoggedRows(NamedTuple):
    """Rows to log.

    Attributes:
        requests: the id of each row's request.
        rows: the index of each row in its request.
        is_numbered: whether the request of each row has several; None if none has.
        keys: the business keys of each row; empty if none has any.
        seconds, times: of each row, the duration of the model's call, and the time of the answer (since 1970).
        weights: the number of rows that each one represents.
    """

    features: Any
    predictions: Sequence[Any] | NDArray[Any]
    requests: Sequence[bytes]
    rows: NDArray[np.int64]
    is_numbered: NDArray[np.bool_] | None
    keys: list[Any]
    seconds: NDArray[np.float64]
    times: NDArray[np.float64]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.predictions)


def list_requests(batches: Sequence[LoggedBatch], new_id: Callable[[], bytes]) -> Requests:
    """The requests of batches. One without an id gets a new one."""
    names = [batch.requests for batch in batches]
    ids: list[Any] = list(chain.from_iterable([entry.ids for entry in names]))
    if not all(ids):
        ids = [request_id or new_id() for request_id in ids]
    keys: list[Any] = []
    if any(entry.keys for entry in names):
        keys = [key for entry in names for key in entry.keys or [None] * len(entry.ids)]
    if all(entry.rows is None for entry in names):
        return Requests(ids, None, keys)
    rows = chain.from_iterable([entry.rows or [1] * len(entry.ids) for entry in names])
    return Requests(ids, np.fromiter(rows, dtype=np.int64, count=len(ids)), keys)


def describe_logged_rows(
    answered: AnsweredRows, batches: Sequence[RecordedBatch], new_id: Callable[[], bytes]
) -> LoggedRows:
    """The rows of batches that can be logged, each with the weight 1.

    Args:
        answered: the same rows.
    """
    logged = [batch.logged for batch in batches if batch.logged is not None]
    ids, counts, keys = list_requests(logged, new_id)
    request_indexes, rows, is_numbered = None, np.zeros(len(answered), dtype=np.int64), None
    if counts is not None:
        row_indexes = _find_request_rows(logged)
        ends = np.cumsum(counts)
        request_indexes = np.searchsorted(ends, row_indexes, side="right")
        rows = row_indexes - (ends - counts)[request_indexes]
        is_numbered = counts[request_indexes] > 1
        ids = [ids[at] for at in request_indexes.tolist()]
    if keys:
        places = range(len(answered)) if request_indexes is None else request_indexes.tolist()
        pairs = zip(places, rows.tolist(), strict=True)
        keys = [request_keys[row] if isinstance(request_keys := keys[at], list) else request_keys for at, row in pairs]
    seconds, times = _list_logged_calls(logged)
    return LoggedRows(
        answered.features,
        answered.predictions,
        ids,
        rows,
        is_numbered,
        keys,
        seconds,
        times,
        np.ones(len(answered), dtype=np.float32),
    )


def _list_logged_calls(batches: Sequence[LoggedBatch]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The seconds of the call, and the time of the answer, of each row."""
    seconds: list[NDArray[np.float64]] = []
    times: list[NDArray[np.float64]] = []
    for batch in batches:
        for values, column in zip((seconds, times), expand_calls(batch.calls), strict=True):
            values.append(column if batch.places is None else column[np.asarray(batch.places)])
    return np.concatenate(seconds), np.concatenate(times)


def _find_request_rows(batches: Sequence[LoggedBatch]) -> NDArray[np.int64]:
    """The index of each row of the batches among those of all their requests."""
    indexes, start = [], 0
    for batch in batches:
        names = batch.requests
        count = len(names.ids) if names.rows is None else sum(names.rows)
        is_all = names.rows is None or batch.places is None
        indexes.append(np.arange(count) if is_all else np.asarray(batch.places, dtype=np.int64))
        indexes[-1] += start
        start += count
    return np.concatenate(indexes)


def take_logged_rows(logged: LoggedRows, rows: NDArray[np.int64], weight: float) -> LoggedRows:
    """Some rows, each of which represents so many."""
    at = rows.tolist()
    return LoggedRows(
        take_rows(logged.features, rows),
        [logged.predictions[row] for row in at],
        [logged.requests[row] for row in at],
        logged.rows[rows],
        None if logged.is_numbered is None else logged.is_numbered[rows],
        [logged.keys[row] for row in at] if logged.keys else [],
        logged.seconds[rows],
        logged.times[rows],
        np.full(len(rows), weight, dtype=np.float32),
    )


def join_logged_rows(model: RecordedModel, pieces: Sequence[LoggedRows]) -> LoggedRows:
    """The rows of all pieces, which are of one model."""
    if len(pieces) == 1:
        return pieces[0]
    is_numbered = None
    if any(piece.is_numbered is not None for piece in pieces):
        masks = [np.zeros(len(piece), bool) if piece.is_numbered is None else piece.is_numbered for piece in pieces]
        is_numbered = np.concatenate(masks)
    has_keys = any(piece.keys for piece in pieces)
    return LoggedRows(
        model.combine_stripped([Part(len(piece), features=piece.features) for piece in pieces]),
        list(chain.from_iterable([piece.predictions for piece in pieces])),
        list(chain.from_iterable([piece.requests for piece in pieces])),
        np.concatenate([piece.rows for piece in pieces]),
        is_numbered,
        [key for piece in pieces for key in piece.keys or [None] * len(piece)] if has_keys else [],
        np.concatenate([piece.seconds for piece in pieces]),
        np.concatenate([piece.times for piece in pieces]),
        np.concatenate([piece.weights for piece in pieces]),
    )


def take_rows(features: Any, rows: NDArray[np.int64]) -> Any:
    """Rows of features."""
    return features[rows] if isinstance(features, np.ndarray) else take_feature_rows(features, rows)
