"""Takes the items of a synchronous generator in a thread, ahead of the event loop that sends them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator
from time import perf_counter
from typing import Any, Generic, TypeVar

from mlapp.errors import UserCodeError, translate_user_errors

T = TypeVar("T")
AHEAD = 16
"""Items that may be ready before the event loop takes them."""
LONGEST_RUN = 0.001
"""Maximum seconds of one run: a slower generator computes an item only after the last one was taken."""
NO_ITEM: Any = object()
log = logging.getLogger("mlapp.serving")


class ThreadedStream(Generic[T]):
    """The items of a synchronous generator, converted.

    Waking the thread and then the event loop takes longer than computing a quick item. So the thread computes several
    quick items in one run, and the event loop takes all items that are ready.

    Args:
        source: the generator. It runs in one thread at a time.
        convert: called with each item before the generator continues, because a predictor can yield one object several
            times and change it in between.
        submit: runs a function in a thread.
        timeout: maximum seconds to wait for an item.
        title: of the user's function, for its errors.
    """

    def __init__(
        self,
        source: Generator[Any, None, None],
        convert: Callable[[Any], T],
        submit: Callable[[Callable[[], None]], object],
        timeout: float,
        title: str,
    ) -> None:
        self._source = source
        self._convert = convert
        self._submit = submit
        self._timeout = timeout
        self._title = title
        self._loop = asyncio.get_running_loop()
        self._items: deque[T] = deque()
        self._error: BaseException | None = None
        self._has_ended = False
        self._is_closed = False
        self._is_running = False
        self._lock = threading.Lock()
        """Protects `_waiter`, `_is_running` and `_is_closed`: the thread must not stop while the event loop begins to
        wait."""
        self._waiter: asyncio.Future[None] | None = None

    async def take_ready_items(self) -> list[T]:
        """The items that are ready, in order; waits for the first. Empty after the last item.

        Raises:
            asyncio.TimeoutError: no item is ready in time. MlappError: the generator, or `convert`, raised.
        """
        # Again if the item that ends the wait was taken already, between its arrival and the end of its step.
        while not self._items and not self._has_ended:
            await self._wait_for_item()
        # The thread appends at the other end, so the length read here stays available.
        items = [self._items.popleft() for _ in range(len(self._items))]
        if not items and self._error is not None:
            raise self._error
        return items

    def close_stream(self) -> None:
        """Close the generator in the thread, after its current step if it runs: its `finally` can take long."""
        with self._lock:
            self._is_closed = True
            is_running = self._is_running
        if is_running or inspect.getgeneratorstate(self._source) == inspect.GEN_CLOSED:
            return
        try:
            self._submit(self._close_source)
        except RuntimeError:  # the server stops, so its threads are shut down
            self._close_source()

    async def _wait_for_item(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        with self._lock:
            if self._items or self._has_ended:  # since the caller looked
                return
            self._waiter = waiter
            should_start = not self._is_running
            self._is_running = True
        if should_start:
            self._submit(self._run_ahead)
        timer = self._loop.call_later(self._timeout, _expire_waiter, waiter)
        try:
            await waiter
        finally:
            timer.cancel()

    def _run_ahead(self) -> None:
        """Take items until enough are ready, or for `LONGEST_RUN`. Runs in the thread."""
        started = perf_counter()
        should_stop = False
        while not should_stop:
            self._take_item()
            is_late = perf_counter() - started > LONGEST_RUN
            with self._lock:
                waiter, self._waiter = self._waiter, None
                should_stop = self._is_closed or self._has_ended or is_late or len(self._items) >= AHEAD
                should_close = self._is_closed
                self._is_running = not should_stop
            if waiter is not None:
                self._loop.call_soon_threadsafe(_settle_waiter, waiter)
        if should_close:
            self._close_source()

    def _close_source(self) -> None:
        try:
            self._source.close()
        except BaseException:  # any error: the answer is already decided, and nobody waits for this call
            log.exception("%s raised an error when its stream was closed", self._title)

    def _take_item(self) -> None:
        try:
            with translate_user_errors(self._title):
                item = next(self._source, NO_ITEM)
            if item is NO_ITEM:
                self._has_ended = True
            else:
                self._items.append(self._convert(item))
        except Exception as error:  # any error: otherwise the request waits until its timeout
            self._error, self._has_ended = error, True
        except BaseException as error:  # the predictor's CancelledError or KeyboardInterrupt must not reach the loop
            self._error, self._has_ended = UserCodeError(self._title, error), True


def _settle_waiter(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _expire_waiter(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(asyncio.TimeoutError())
