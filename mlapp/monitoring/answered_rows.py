"""The rows of answered batches: joined once for counting and for the log, and those of them to log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlapp.monitoring.batch import RecordedBatch
from mlapp.schema.feature_containers import take_feature_container_rows
from mlapp.schema.part import Part

if TYPE_CHECKING:
    from numpy.typing import NDArray


class AnsweredRows:
    """The rows of some batches of one model, in order.

    Attributes:
        sizes: the number of rows of each batch.
    """

    def __init__(self, batches: Sequence[RecordedBatch]) -> None:
        self.batches = batches
        self.model = batches[0].model
        self.sizes = [len(batch.predictions) for batch in batches]

    def __len__(self) -> int:
        return sum(self.sizes)

    @cached_property
    def predictions(self) -> list[Any]:
        """The prediction of each row."""
        return list(chain.from_iterable([batch.predictions for batch in self.batches]))

    @cached_property
    def features(self) -> Any:
        """The features of all rows as one table, array or list."""
        return self.model.combine_stripped(list(chain.from_iterable([batch.parts for batch in self.batches])))


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
    predictions: Sequence[Any]
    requests: list[bytes]
    rows: NDArray[np.int64]
    is_numbered: NDArray[np.bool_] | None
    keys: list[Any]
    seconds: NDArray[np.float64]
    times: NDArray[np.float64]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.predictions)


def list_requests(batches: Sequence[RecordedBatch], new_id: Callable[[], bytes]) -> Requests:
    """The requests of batches, all of which have them. One without an id gets a new one."""
    names = [batch.requests for batch in batches if batch.requests is not None]
    ids: list[Any] = list(chain.from_iterable([one.ids for one in names]))
    if not all(ids):
        ids = [known or new_id() for known in ids]
    keys: list[Any] = []
    if any(one.keys for one in names):
        keys = [key for one in names for key in one.keys or [None] * len(one.ids)]
    if all(one.rows is None for one in names):
        return Requests(ids, None, keys)
    rows = chain.from_iterable([one.rows or [1] * len(one.ids) for one in names])
    return Requests(ids, np.fromiter(rows, dtype=np.int64, count=len(ids)), keys)


def log_all(answered: AnsweredRows, requests: Requests) -> LoggedRows:
    """All rows."""
    places = np.arange(len(answered))
    return _log_rows(answered, requests, answered.features, answered.predictions, places, places, 1.0)


def log_some(
    answered: AnsweredRows, drawn: NDArray[np.int64], requests: Requests, chosen: NDArray[np.int64], weight: float
) -> LoggedRows:
    """Some rows.

    Args:
        drawn: the indexes of the batches that `requests` belong to.
        chosen: indexes among the rows of these batches.
        weight: the number of rows of these batches that each one represents.
    """
    ends = np.cumsum(answered.sizes)
    sizes = np.asarray(answered.sizes)[drawn]
    of = np.searchsorted(np.cumsum(sizes), chosen, side="right")
    starts = (ends[drawn] - sizes) - (np.cumsum(sizes) - sizes)
    places = chosen + starts[of]
    shares = np.array([answered.batches[at].share for at in drawn[of].tolist()], dtype=np.float32)
    features = take_rows(answered.features, places)
    predictions = [answered.predictions[at] for at in places.tolist()]
    return _log_rows(answered, requests, features, predictions, chosen, places, weight * shares)


def _log_rows(
    answered: AnsweredRows,
    requests: Requests,
    features: Any,
    predictions: Sequence[Any],
    chosen: NDArray[np.int64],
    places: NDArray[np.int64],
    weights: NDArray[np.float32] | float,
) -> LoggedRows:
    """Rows at `chosen` of the requests, which are those at `places` of the answered ones."""
    ids, counts, keys = requests
    of, rows, is_numbered = chosen, np.zeros(len(chosen), dtype=np.int64), None
    if counts is not None:
        ends = np.cumsum(counts)
        of = np.searchsorted(ends, chosen, side="right")
        rows = chosen - (ends - counts)[of]
        is_numbered = counts[of] > 1
    if counts is not None or len(chosen) < len(ids):
        ids = [ids[at] for at in of.tolist()]
    if keys:
        pairs = zip(of.tolist(), rows.tolist(), strict=True)
        keys = [found[row] if isinstance(found := keys[at], list) else found for at, row in pairs]
    seconds = np.repeat([batch.seconds for batch in answered.batches], answered.sizes)
    times = np.repeat([batch.at for batch in answered.batches], answered.sizes)
    if len(places) < len(answered):
        seconds, times = seconds[places], times[places]
    shares = np.empty(len(chosen), dtype=np.float32)
    shares[:] = weights
    return LoggedRows(features, predictions, ids, rows, is_numbered, keys, seconds, times, shares)


def join_logged_rows(model: Any, pieces: Sequence[LoggedRows]) -> LoggedRows:
    """The rows of all pieces, which are of one model."""
    if len(pieces) == 1:
        return pieces[0]
    is_numbered = None
    if any(piece.is_numbered is not None for piece in pieces):
        known = [np.zeros(len(piece), bool) if piece.is_numbered is None else piece.is_numbered for piece in pieces]
        is_numbered = np.concatenate(known)
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
    return features[rows] if isinstance(features, np.ndarray) else take_feature_container_rows(features, rows)
