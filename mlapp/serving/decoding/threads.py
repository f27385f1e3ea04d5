"""Decodes large bodies in a small number of threads, as long as a client waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

from mlapp.serving.web.budget import Budget
from mlapp.serving.web.http import ClientLeft

T = TypeVar("T")
THREADS = 2
"""Bodies that are decoded at once: with more, the event loop would get its turn too seldom."""


async def decode_in_thread(
    read: Callable[[], T],
    budget: Budget,
    left: Callable[[], Awaitable[Any]] | None = None,
    executor: Executor | None = None,
) -> T:
    """The result of `read`. The budget reports to it when the client has left.

    Args:
        left: returns an awaitable that ends when the client leaves.
        executor: runs it; by default the threads of all decoders.

    Raises:
        HttpError: 504, timeout. ClientLeft: the client left first.
    """
    task = asyncio.get_running_loop().run_in_executor(executor or _get_decoding_threads(), read)
    waiting: set[asyncio.Future[Any]] = {task}
    leaving = None if left is None else asyncio.ensure_future(left())
    if leaving is not None:
        waiting.add(leaving)
    try:
        await asyncio.wait(waiting, timeout=budget.remaining, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if leaving is not None and leaving.done():
            raise ClientLeft
        raise budget.expired_error()
    finally:
        if not task.done():
            budget.cancel()
            task.cancel()
            task.add_done_callback(_ignore_thread_error)
        if leaving is not None:
            leaving.cancel()
        del task, waiting  # they keep an error, the error this frame, and the frame the request's body


def _ignore_thread_error(task: asyncio.Future[Any]) -> None:
    """The error of a cancelled task is not used."""
    if not task.cancelled():
        task.exception()


@cache
def _get_decoding_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
