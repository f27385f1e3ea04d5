"""An event loop in its own thread, for async predictors, streams and the warm-up, as in the server's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """An event loop for work from other threads. It starts immediately and ends with the process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="mlapp-loop", daemon=True).start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for its result. Must not be called from the loop's thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def stop(self) -> None:
        """Stop the loop. No other thread may be waiting for it."""
        self.loop.call_soon_threadsafe(self.loop.stop)

    def iterate(self, items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """The items of an async generator, which is closed with the returned generator."""
        try:
            while True:
                try:
                    yield self.run(_take_next_stream_item(items))
                except StopAsyncIteration:
                    return
        finally:
            self.run(items.aclose())


async def _take_next_stream_item(items: AsyncGenerator[T, None]) -> T:
    return await anext(items)
