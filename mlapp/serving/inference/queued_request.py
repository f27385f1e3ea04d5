"""A request in the queue, and the delivery of a batch's predictions to its requests."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

from mlapp.schema.rows import Part
from mlapp.serving.decoding.json_body import encode_numbers
from mlapp.serving.inference.served_model import ServedModel

Done = Callable[["list[Any] | BaseException"], None]


class QueuedRequest:
    """A request that waits for its predictions or is in a running call.

    `done` is called once in the event loop, with the predictions or the error; never after `Batcher.cancel_request`.
    """

    __slots__ = ("arrived", "call", "done", "expires", "is_waiting", "loaded", "part", "span", "timeout")

    def __init__(self, loaded: ServedModel, part: Part, done: Done, timeout: float) -> None:
        self.loaded = loaded
        self.part = part
        self.done = done
        self.is_waiting = True
        """Whether anybody waits for the result: not after the deadline, and not when the client has left."""
        self.timeout = timeout
        self.arrived = time.perf_counter()
        self.expires = self.arrived + timeout
        self.span: Any = None
        """The trace that waits for it, where there are traces."""
        self.call: asyncio.Task[None] | None = None
        """The call of an `async def` predictor that holds the request."""

    def finish_request(self, result: list[Any] | BaseException, text: bytes | None = None) -> None:
        """Deliver the result, unless the deadline has passed or the client has left.

        Args:
            text: the only prediction as JSON, if it was encoded for the whole batch.
        """
        is_waiting, self.is_waiting = self.is_waiting, False
        if is_waiting:
            self.done(result)


def split_rows(rows: list[Any], parts: list[Part]) -> list[Any]:
    """Each request's own rows."""
    if len(parts) == 1:
        return [rows]
    counts = [part.rows for part in parts]
    if counts.count(1) == len(counts):
        return [[row] for row in rows]
    ends = list(itertools.accumulate(counts))
    return [rows[end - part.rows : end] for part, end in zip(parts, ends, strict=True)]


def has_no_waiter(items: list[QueuedRequest]) -> bool:
    """Whether all clients have left. Then a retry only delays others."""
    return not any(item.is_waiting for item in items)


def deliver_results(batch: list[QueuedRequest], results: list[Any]) -> None:
    """Deliver the results. If each request has one number, all are encoded in one call."""
    texts = encode_numbers(results) if len(batch) > 1 else None
    if texts is None:
        for item, result in zip(batch, results, strict=True):
            item.finish_request(result)
    else:
        for item, result, text in zip(batch, results, texts, strict=True):
            item.finish_request(result, text)
