"""Runs predictors that yield. Each request has its own stream, which ends when its client disconnects."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from mlapp.errors import MlappError
from mlapp.normalization import normalize_to_json
from mlapp.schema.part import Part
from mlapp.serving.inference.served_model import ServedModel
from mlapp.serving.inference.threaded_stream import ThreadedStream
from mlapp.serving.inference.user_coroutine import run_user_coroutine
from mlapp.serving.observability.metrics import ModelMetrics
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.problems import HttpError, make_http_error

T = TypeVar("T")
ITEM = 100
"""Bytes of memory of an item in addition to its JSON."""
RETRY_AFTER = ((b"retry-after", b"1"),)
THREADS = 32
"""Maximum concurrent streams of a synchronous predictor: each uses a thread while it computes items."""
log = logging.getLogger("mlapp.serving")


class Streams:
    """The streams of one model.

    Args:
        most: maximum concurrent streams of an async predictor.
    """

    def __init__(self, metrics: ModelMetrics, most: int) -> None:
        self._metrics = metrics
        self._most = most
        self._running = 0
        self._threads: ThreadPoolExecutor | None = None

    async def stream_items(
        self, model: ServedModel, part: Part, timeout: float, convert: Callable[[Any], T]
    ) -> AsyncGenerator[list[T], None]:
        """The predictor's result: the items that are ready, again and again. Streams are not batched.

        Args:
            timeout: maximum seconds to wait for an item.
            convert: called with each item as a JSON value, before the predictor continues.

        Raises:
            HttpError: 503, too many streams; 504, an item takes longer than `timeout` seconds.
            UserCodeError: the predictor raised. DataError: JSON cannot represent an item.
        """
        stage = model.predictor.stage
        is_async = inspect.isasyncgenfunction(stage.function)
        if self._running >= (self._most if is_async else THREADS):
            self._metrics.rejected.inc()
            raise HttpError(
                503, f"{self._running} streams are already running. Try again in a second.", headers=RETRY_AFTER
            )

        def convert_item(item: Any) -> T:
            return convert(normalize_to_json(item, stage.title))

        self._running += 1
        try:
            source = await self._begin_stream(model, part)
            if is_async:
                batches = _iterate_async_stream(source, convert_item, timeout, stage.title)
            else:
                batches = self._iterate_stream_in_thread(source, convert_item, timeout, stage.title)
            async with aclosing(batches):
                async for items in batches:
                    yield items
        except asyncio.TimeoutError:
            self._metrics.expired.inc()
            raise HttpError(504, f"The next item was not ready within {timeout:g} seconds.") from None
        except Exception:
            self._metrics.failed.inc()
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self._metrics.cancelled.inc()
            raise
        finally:
            self._running -= 1

    def close_streams(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _begin_stream(self, model: ServedModel, part: Part) -> Any:
        """The predictor's generator. A feature_transformer runs in a thread, because it can take long."""

        def start_generator() -> Any:
            return model.predict_features(model.codec.combine_parts([part]))

        if model.predictor.pipeline.stage("feature_transformer") is None:
            return start_generator()
        return await asyncio.wrap_future(self._submit_stream_call(start_generator))

    async def _iterate_stream_in_thread(
        self, source: Any, convert: Callable[[Any], T], timeout: float, function: str
    ) -> AsyncGenerator[list[T], None]:
        stream = ThreadedStream(source, convert, self._submit_stream_call, timeout, function)
        try:
            while items := await stream.take_ready_items():
                yield items
        finally:
            stream.close_stream()

    def _submit_stream_call(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="stream")
        return self._threads.submit(call, *arguments)


async def _iterate_async_stream(
    source: AsyncGenerator[Any, None], convert: Callable[[Any], T], timeout: float, function: str
) -> AsyncGenerator[list[T], None]:
    try:
        while True:
            try:
                item = await run_user_coroutine(anext(source), function, timeout)
            except StopAsyncIteration:
                return
            yield [convert(item)]
    finally:
        try:
            await run_user_coroutine(source.aclose(), function, timeout)
        except (MlappError, MemoryError, asyncio.TimeoutError):  # the answer is already decided
            log.exception("%s raised an error when its stream was closed", function)


async def encode_stream_events(batches: AsyncGenerator[list[bytes], None]) -> AsyncGenerator[bytes, None]:
    """Items as server-sent events (HTML standard): an item is a `data:` line of JSON, an error an event named `error`.

    Args:
        batches: items as JSON.

    Raises:
        HttpError, MlappError: only before the first event. Then it becomes a problem response.
    """
    has_begun = False
    try:
        async with aclosing(batches):
            async for items in batches:
                has_begun = True
                yield b"data: " + b"\n\ndata: ".join(items) + b"\n\n"
        yield b"event: end\ndata: {}\n\n"
    except Exception as error:  # status 200 is already sent, so an error becomes an event
        if not has_begun:
            raise
        yield encode_stream_error(error)


def encode_stream_error(error: BaseException) -> bytes:
    """The event that ends a stream that failed."""
    return b"event: error\ndata: " + make_http_error(error).problem_body() + b"\n\n"


async def collect_stream(batches: AsyncGenerator[list[bytes], None], limit: int, budget: Budget) -> list[msgspec.Raw]:
    """All items as one JSON answer.

    Args:
        batches: items as JSON.
        limit: maximum bytes of the items.

    Raises:
        HttpError: 406, they exceed the limit; 504, they do not end in the request's time.
    """
    collected: list[msgspec.Raw] = []
    size = 0
    async with aclosing(batches):
        async for items in batches:
            collected += map(msgspec.Raw, items)
            size += sum(map(len, items)) + ITEM * len(items)
            if size > limit:
                raise HttpError(
                    406, f"The stream has more than {limit} bytes (serve.max_body). Send Accept: text/event-stream."
                )
            budget.check()
    return collected
