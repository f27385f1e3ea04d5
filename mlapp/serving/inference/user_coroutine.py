"""Runs a coroutine of the app so that no error in it can end the event loop or look like a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from mlapp.errors import UserCodeError, translate_user_errors

T = TypeVar("T")


async def run_user_coroutine(work: Awaitable[T], function: str, timeout: float | None = None) -> T:
    """The result of a coroutine of the app, in a task of its own.

    Without `asyncio.wait_for`, which can swallow the cancellation of the caller in Python 3.11.

    Args:
        function: its title, for its errors.
        timeout: maximum seconds; None for no limit.

    Raises:
        asyncio.TimeoutError: it takes longer. UserCodeError: it raised, also a CancelledError or a KeyboardInterrupt.
        StopAsyncIteration: `work` is the step of a stream that has ended.
    """
    task = asyncio.ensure_future(_await_user_coroutine(work, function))
    try:
        await asyncio.wait((task,), timeout=timeout)
        if not task.done():
            raise asyncio.TimeoutError
        if task.cancelled():
            raise UserCodeError(function, asyncio.CancelledError())
        return task.result()
    finally:
        if task.cancel():
            await asyncio.wait((task,))  # a running generator cannot be closed


async def _await_user_coroutine(work: Awaitable[T], function: str) -> T:
    # Translated inside the task: a KeyboardInterrupt or SystemExit that leaves a task ends the whole event loop.
    with translate_user_errors(function, passed_on=(StopAsyncIteration, asyncio.CancelledError), is_served=True):
        return await work
