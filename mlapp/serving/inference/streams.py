"""Runs predictors that yield. Each request has its own stream, which ends when its client leaves."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import msgspec

from mlapp.errors import STAGE_ERRORS, MlappError, UserCodeError, translate_user_errors
from mlapp.normalization import normalize_to_json
from mlapp.schema.part import Part
from mlapp.serving.decoding.json_body import encode_json
from mlapp.serving.inference.served_model import ServedModel
from mlapp.serving.observability.metrics import ModelMetrics
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.problems import HttpError, make_http_error

ITEM = 100
"""Bytes that an item takes beside its JSON, in memory."""
RETRY_AFTER = ((b"retry-after", b"1"),)
THREADS = 32
"""Streams of a sync predictor that run at once; each holds a thread while it computes its next item."""


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

    async def stream_items(self, loaded: ServedModel, part: Part, timeout: float) -> AsyncGenerator[Any, None]:
        """The predictor's result, item by item. Streams are not batched.

        Raises:
            HttpError: 503, too many streams; 504, an item takes longer than `timeout` seconds.
            UserCodeError: the predictor raised.
        """
        stage = loaded.predictor.stage
        is_async = inspect.isasyncgenfunction(stage.function)
        if self._running >= (self._most if is_async else THREADS):
            self._metrics.rejected.inc()
            raise HttpError(
                503, f"{self._running} streams are already running. Try again in a second.", headers=RETRY_AFTER
            )
        self._running += 1
        try:
            source = await self._begin_stream(loaded, part)
            items = source if is_async else self._iterate_stream_in_thread(source, timeout, stage.title)
            async with aclosing(items):
                while True:
                    try:
                        item = await (_wait_for_stream_item(items, timeout, stage.title) if is_async else anext(items))
                    except StopAsyncIteration:
                        break
                    except asyncio.TimeoutError:
                        self._metrics.expired.inc()
                        raise HttpError(504, f"The next item was not ready within {timeout:g} seconds.") from None
                    except MlappError:
                        raise
                    except STAGE_ERRORS as error:
                        raise UserCodeError(stage.title, error) from error
                    yield normalize_to_json(item, stage.title)
        except MlappError:
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

    async def _begin_stream(self, loaded: ServedModel, part: Part) -> Any:
        """The predictor's generator. A feature_transformer runs in a thread, because it can take long."""

        def start_generator() -> Any:
            return loaded.predict_features(loaded.codec.combine_parts([part]))

        if loaded.predictor.pipeline.stage("feature_transformer") is None:
            return start_generator()
        return await asyncio.wrap_future(self._submit_stream_call(start_generator))

    async def _iterate_stream_in_thread(self, source: Any, timeout: float, function: str) -> AsyncGenerator[Any, None]:
        """A synchronous iterator as an async one, with each step in a thread.

        Raises:
            asyncio.TimeoutError: a step takes longer than `timeout` seconds.
        """
        loop, end = asyncio.get_running_loop(), object()
        step: Future[Any] | None = None
        try:
            while True:
                # One future and one timer: a task for each step, as for an async iterator, takes a third more.
                ready: asyncio.Future[Any] = loop.create_future()
                timer = loop.call_later(timeout, _settle_future, ready, None, asyncio.TimeoutError())
                step = self._submit_stream_call(_run_step, source, end, loop, ready, function)
                try:
                    item = await ready
                finally:
                    timer.cancel()
                if item is end:
                    return
                yield item
        finally:
            # A generator cannot be closed while it runs. If the client leaves during a step, close it afterwards.
            if step is None or step.done():
                source.close()
            else:
                step.add_done_callback(lambda step: source.close())

    def _submit_stream_call(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="stream")
        return self._threads.submit(call, *arguments)


def _run_step(
    source: Any, end: object, loop: asyncio.AbstractEventLoop, ready: asyncio.Future[Any], function: str
) -> None:
    """Take the next item in a thread."""
    try:
        item = next(source, end)
    except asyncio.CancelledError as error:  # of a loop of the predictor's own: in `ready` it would cancel the request
        loop.call_soon_threadsafe(_settle_future, ready, None, UserCodeError(function, error))
    except BaseException as error:  # whatever it is: the request waits for `ready`
        loop.call_soon_threadsafe(_settle_future, ready, None, error)
    else:
        loop.call_soon_threadsafe(_settle_future, ready, item, None)


def _settle_future(future: asyncio.Future[Any], item: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(item)
    else:
        future.set_exception(error)


async def _wait_for_stream_item(items: AsyncGenerator[Any, None], timeout: float, function: str) -> Any:
    """The next item. Without `asyncio.wait_for`, which can swallow the cancellation of the stream in Python 3.11."""
    step = asyncio.ensure_future(_take_stream_item(items, function))
    try:
        await asyncio.wait((step,), timeout=timeout)
        if not step.done():
            raise asyncio.TimeoutError
        return step.result()
    finally:
        if step.cancel():
            await asyncio.wait((step,))  # a running generator cannot be closed


async def _take_stream_item(items: AsyncGenerator[Any, None], function: str) -> Any:
    # Inside the task: a task in which the predictor calls sys.exit() ends the whole event loop.
    with translate_user_errors(function, passed_on=(StopAsyncIteration, asyncio.TimeoutError)):
        return await anext(items)


async def encode_stream_events(items: AsyncGenerator[Any, None]) -> AsyncGenerator[bytes, None]:
    """Items as server-sent events (the HTML standard): `data:` lines of JSON; an error is an event of that name.

    Raises:
        HttpError, MlappError: only before the first event. Then it becomes a problem response.
    """
    has_begun = False
    try:
        async with aclosing(items):
            async for item in items:
                has_begun = True
                yield b"data: " + encode_json(item) + b"\n\n"
        yield b"event: end\ndata: {}\n\n"
    except Exception as error:  # status 200 is sent already, so that every error is an event
        if not has_begun:
            raise
        yield b"event: error\ndata: " + make_http_error(error).problem_body() + b"\n\n"


async def collect_stream(items: AsyncGenerator[Any, None], limit: int, budget: Budget) -> list[msgspec.Raw]:
    """All items as one JSON answer.

    Args:
        limit: maximum bytes of the items.

    Raises:
        HttpError: 406, they exceed the limit; 504, they do not end in the request's time.
    """
    found, size = [], 0
    async with aclosing(items):
        async for item in items:
            found.append(msgspec.Raw(encode_json(item)))
            size += len(found[-1]) + ITEM
            if size > limit:
                raise HttpError(
                    406, f"The stream has more than {limit} bytes (serve.max_body). Send Accept: text/event-stream."
                )
            budget.check()
    return found
