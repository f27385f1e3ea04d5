"""A request in the queue, and the delivery of a batch's predictions to its requests."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mlapp.monitoring.batch import JoinedResults
from mlapp.schema.part import Part
from mlapp.serving.decoding.json_body import encode_json_body_numbers
from mlapp.serving.inference.served_model import ServedModel

ResultCallback = Callable[["list[Any] | BaseException"], None]


class QueuedRequest(msgspec.Struct, eq=False):
    """A request that waits for its predictions or is in a running call.

    Attributes:
        timeout: seconds after `arrived` until it gets a 504 and leaves the queue.
        arrived: time of `perf_counter`.
        response_complete: whether the result is no longer needed: it was delivered, the deadline has passed, or the
            client has disconnected. The name is uvicorn's.
        span: the request's OpenTelemetry span, if tracing is on.
        call: the call of an `async def` predictor that holds the request.
        identity: the request's id.
    """

    model: ServedModel
    part: Part
    timeout: float
    arrived: float = msgspec.field(default_factory=time.perf_counter)
    response_complete: bool = False
    span: Any = None
    call: asyncio.Task[None] | None = None
    identity: bytes | None = None

    @property
    def expires(self) -> float:
        """Time of `perf_counter` of its deadline."""
        return self.arrived + self.timeout

    def finish_request(self, result: list[Any] | BaseException) -> None:
        """Deliver the result, unless `response_complete`."""
        raise NotImplementedError

    @classmethod
    def finish_batch(cls, batch: Sequence[QueuedRequest], rows: Sequence[Any], numbers: bytes) -> None:
        """Deliver the predictions of requests with one row each. The first request is of this class.

        Args:
            numbers: the predictions as JSON, separated by commas.
        """
        for request, row in zip(batch, rows, strict=True):
            request.finish_request([row])


class CallbackRequest(QueuedRequest, kw_only=True):
    """A request whose predictions or error are passed to a function, once and in the event loop.

    It is not called after `Batcher.cancel_request`.
    """

    on_done: ResultCallback

    def finish_request(self, result: list[Any] | BaseException) -> None:
        is_waiting, self.response_complete = not self.response_complete, True
        if is_waiting:
            self.on_done(result)


def split_queued_request_rows(rows: Sequence[Any], parts: Sequence[Part]) -> Sequence[Any]:
    """The rows of each request."""
    if len(parts) == 1:
        return [rows]
    ends = list(itertools.accumulate([part.rows for part in parts]))
    return [rows[end - part.rows : end] for part, end in zip(parts, ends, strict=True)]


def has_no_waiting_request(requests: list[QueuedRequest]) -> bool:
    """Whether no request needs its result any more. Then a retry would only delay others."""
    return all(request.response_complete for request in requests)


def deliver_request_results(batch: list[QueuedRequest], results: Sequence[Any]) -> None:
    """Deliver the results. If each request has one number, all are encoded in one call."""
    if isinstance(results, JoinedResults) and results.has_single_rows and len(batch) > 1:
        numbers = encode_json_body_numbers(results.rows)
        if numbers is not None:
            batch[0].finish_batch(batch, results.rows, numbers)
            return
    for request, result in zip(batch, results, strict=True):
        request.finish_request(result)
