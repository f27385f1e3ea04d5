"""Decodes large bodies in a few threads, as long as their clients wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

from mlapp.serving.web.budget import Budget
from mlapp.serving.web.http import ClientDisconnected

T = TypeVar("T")
THREADS = 2
"""Maximum bodies that are decoded at once. With more, the event loop would run too rarely."""


async def decode_in_thread(
    decode: Callable[[], T],
    budget: Budget,
    wait_for_disconnect: Callable[[], Awaitable[Any]] | None = None,
    executor: Executor | None = None,
) -> T:
    """Call `decode` in a thread, and return its result. Cancels the budget when nobody waits for the result.

    Args:
        wait_for_disconnect: returns an awaitable that ends when the client leaves.
        executor: runs it; by default the threads that all large bodies share.

    Raises:
        HttpError: 504, timeout. ClientDisconnected: the client left first.
    """
    task = asyncio.get_running_loop().run_in_executor(executor or _get_decoding_threads(), decode)
    awaited: set[asyncio.Future[Any]] = {task}
    disconnect = None if wait_for_disconnect is None else asyncio.ensure_future(wait_for_disconnect())
    if disconnect is not None:
        awaited.add(disconnect)
    try:
        await asyncio.wait(awaited, timeout=budget.remaining, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if disconnect is not None and disconnect.done():
            raise ClientDisconnected
        raise budget.expired_error()
    finally:
        if not task.done():
            budget.cancel()
            task.cancel()
            task.add_done_callback(_ignore_thread_error)
        if disconnect is not None:
            disconnect.cancel()
        del task, awaited  # an error in them refers to this frame, and the frame to the request's body


def _ignore_thread_error(task: asyncio.Future[Any]) -> None:
    """Retrieve the error of an abandoned task, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()


@cache
def _get_decoding_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
