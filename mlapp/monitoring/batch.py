"""An answered batch, as the recorder stores it until it is counted: few objects for many requests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec


class JoinedResults(Sequence[Any]):
    """The predictions of each request, of one call of a model that answered all of them.

    Args:
        parts: the features of the requests, joined where that is possible.
        rows: the predictions of all requests, in order.
        results: for each request its predictions; None if each has one.
    """

    def __init__(self, parts: Sequence[Any], rows: Sequence[Any], results: Sequence[Any] | None = None) -> None:
        self.parts, self.rows, self._results = parts, rows, results

    @property
    def has_single_rows(self) -> bool:
        """Whether each request has one prediction."""
        return self._results is None

    def __len__(self) -> int:
        return len(self.rows if self._results is None else self._results)

    def __getitem__(self, at: Any) -> Any:
        return [self.rows[at]] if self._results is None else self._results[at]


class RequestNames(NamedTuple):
    """The log's data of the requests of a batch, in order.

    Attributes:
        ids: of each request, or None.
        rows: of each request; None if each has one.
        keys: of each request; None if no request has keys.
    """

    ids: list[bytes | None]
    rows: list[int] | None
    keys: list[Any] | None


class RecordedBatch(msgspec.Struct, gc=False):
    """Features and predictions of one call of a model.

    Attributes:
        parts: the features of the answered requests, in order: joined, or from `strip_parts`.
        predictions: one per row of the parts.
        requests: None if no row of the batch is logged.
        share: the number of batches that the requests stand for in the log.
        seconds: duration of the call.
        at: time of the answer, in seconds since 1970.
    """

    model: Any
    parts: Sequence[Any]
    predictions: Sequence[Any]
    requests: RequestNames | None
    share: int
    seconds: float
    at: float


def make_monitoring_batch(
    model: Any, parts: Sequence[Any], results: Sequence[Any], seconds: float, at: float, *, share: int
) -> RecordedBatch | None:
    """The part of a batch that was answered with predictions, or None.

    Args:
        results: the predictions, or an error, of each part.
        share: the number of batches that this one stands for in the log; 0 keeps nothing for the log.
    """
    requests = parts
    predictions: Sequence[Any]
    if isinstance(results, JoinedResults):
        features, predictions = results.parts, results.rows
    else:
        try:
            predictions = list(chain.from_iterable(results))
        except TypeError:  # an error is no list
            answered = [pair for pair in zip(parts, results, strict=True) if isinstance(pair[1], Sequence)]
            if not answered:
                return None
            requests = [part for part, _ in answered]
            predictions = list(chain.from_iterable([result for _, result in answered]))
        features = model.strip_parts(requests)
    names = None
    if share:
        ids = [part.id for part in requests if part.keys is None]
        keys = None
        if len(ids) < len(requests):
            ids, keys = [part.id for part in requests], [part.keys for part in requests]
        rows = None if len(requests) == len(predictions) else [part.rows for part in requests]
        names = RequestNames(ids, rows, keys)
    return RecordedBatch(model, features, predictions, names, share, seconds, at)
