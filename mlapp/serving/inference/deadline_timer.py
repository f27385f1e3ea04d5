"""One timer for the deadlines of all requests, which is cheaper than one for each."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable

from mlapp.serving.inference.queued_request import QueuedRequest


class DeadlineTimer:
    """Calls `expire` when the earliest deadline is reached. `expire` must watch the remaining deadlines again.

    Deadlines are times of `time.perf_counter`. Call every method in the event loop.
    """

    def __init__(self, expire: Callable[[], None]) -> None:
        self._expire = expire
        self._earliest = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def watch_deadline(self, expires: float) -> None:
        if expires >= self._earliest:
            return
        self.close_timer()
        self._earliest = expires
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + expires - time.perf_counter(), self._end_timer)

    def watch_requests(self, requests: Iterable[QueuedRequest]) -> None:
        """Watch the deadlines of one or more requests."""
        self.watch_deadline(min([request.expires for request in requests]))

    def close_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end_timer(self) -> None:
        self._timer, self._earliest = None, math.inf
        self._expire()
