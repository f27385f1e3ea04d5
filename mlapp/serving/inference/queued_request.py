"""A request in the queue, and the delivery of a batch's predictions to its requests."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mlapp.schema.part import Part
from mlapp.serving.decoding.json_body import encode_numbers
from mlapp.serving.inference.served_model import ServedModel

Done = Callable[["list[Any] | BaseException"], None]


class QueuedRequest(msgspec.Struct, eq=False):
    """A request that waits for its predictions or is in a running call.

    Attributes:
        timeout: seconds after `arrived` until it gets a 504 and leaves the queue.
        arrived: time of `perf_counter`.
        is_waiting: whether anybody waits for the result: not after the deadline, and not when the client has left.
        span: the trace that waits for it, where there are traces.
        call: the call of an `async def` predictor that holds the request.
    """

    loaded: ServedModel
    part: Part
    timeout: float
    arrived: float = msgspec.field(default_factory=time.perf_counter)
    is_waiting: bool = True
    span: Any = None
    call: asyncio.Task[None] | None = None

    @property
    def expires(self) -> float:
        """Time of `perf_counter` of its deadline."""
        return self.arrived + self.timeout

    def finish_request(self, result: list[Any] | BaseException, text: bytes | None = None) -> None:
        """Deliver the result, unless the deadline has passed or the client has left.

        Args:
            text: the only prediction as JSON, if it was encoded for the whole batch.
        """
        raise NotImplementedError

    @classmethod
    def finish_batch(cls, batch: Sequence[QueuedRequest], results: Sequence[Any], texts: Sequence[bytes]) -> None:
        """Deliver the results of requests with one number each, of which the first is of this class."""
        for item, result, text in zip(batch, results, texts, strict=True):
            item.finish_request(result, text)


class CallbackRequest(QueuedRequest, kw_only=True):
    """A request that calls a function, once and in the event loop, with the predictions or the error.

    It is not called after `Batcher.cancel_request`.
    """

    done: Done

    def finish_request(self, result: list[Any] | BaseException, text: bytes | None = None) -> None:
        is_waiting, self.is_waiting = self.is_waiting, False
        if is_waiting:
            self.done(result)


def split_request_rows(rows: list[Any], parts: list[Part]) -> list[Any]:
    """Each request's own rows."""
    if len(parts) == 1:
        return [rows]
    counts = [part.rows for part in parts]
    if counts.count(1) == len(counts):
        return [[row] for row in rows]
    ends = list(itertools.accumulate(counts))
    return [rows[end - part.rows : end] for part, end in zip(parts, ends, strict=True)]


def has_no_waiting_request(items: list[QueuedRequest]) -> bool:
    """Whether all clients have left. Then a retry only delays others."""
    return not any(item.is_waiting for item in items)


def deliver_request_results(batch: list[QueuedRequest], results: list[Any]) -> None:
    """Deliver the results. If each request has one number, all are encoded in one call."""
    texts = encode_numbers(results) if len(batch) > 1 else None
    if texts is None:
        for item, result in zip(batch, results, strict=True):
            item.finish_request(result)
    else:
        batch[0].finish_batch(batch, results, texts)
