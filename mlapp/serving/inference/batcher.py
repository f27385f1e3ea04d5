"""Batches without waiting: all requests that wait when the model is free go through the predictor as one table.

A lone request never waits for others unless a wait is set: the first of a turn of the event loop schedules a flush in
the next turn, and the flush takes all requests that have arrived by then. After a batch of several rows, it waits for
more turns as long as they bring requests: clients that were answered together send their next requests together. While
a slow predictor runs in its thread, requests collect. Afterwards the next batch waits briefly for the answered clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from mlapp.monitoring.recorder import Recorder
from mlapp.schema.part import Part
from mlapp.serving.inference.arrivals import Arrivals
from mlapp.serving.inference.batch_predict import predict_batch, try_batch, try_batch_async
from mlapp.serving.inference.deadline_timer import DeadlineTimer
from mlapp.serving.inference.latency import Latency
from mlapp.serving.inference.model_thread import ModelThread
from mlapp.serving.inference.overload import FEW, Overload
from mlapp.serving.inference.queued_request import CallbackRequest, Done, QueuedRequest, deliver_request_results
from mlapp.serving.inference.returning_clients import ReturningClients
from mlapp.serving.inference.served_model import ServedModel
from mlapp.serving.observability.metrics import ModelMetrics
from mlapp.serving.observability.tracing import BatchSpans
from mlapp.serving.web.problems import HttpError

log = logging.getLogger("mlapp.serving")

CLIENTS = 64
"""Maximum concurrent calls of an `async def` predictor, for any number of rows; and requests that can wait for
their own call without counting as an overload.
"""
RETRY_AFTER = ((b"retry-after", b"1"),)
NOTE_DELAY = 0.002
"""Seconds after which a call in the thread is recorded: while the next one runs, and the event loop has time."""


class Batcher:
    """The queue of one model. Call every method in the event loop.

    Args:
        batch: False passes one request at a time to the predictor.
        max_batch: maximum rows per call. A request with more rows is predicted alone.
        wait: seconds that a request can wait for others.
        queue: most rows that may wait; a request with more may wait alone. Calls of an `async def` predictor run side
            by side, so that hardly any request waits: the rows in them count too. None: as many as `max_wait` lets.
        max_wait: maximum expected seconds of waiting, by the measured pace of the model; see `Overload`.
        spans: makes a span of each call of the model.
    """

    def __init__(
        self,
        metrics: ModelMetrics,
        *,
        batch: bool,
        max_batch: int,
        wait: float,
        queue: int | None,
        max_wait: float = 1.0,
        spans: BatchSpans | None = None,
    ) -> None:
        self._spans = spans
        self._metrics = metrics
        metrics.depth = lambda: len(self._waiting)
        metrics.wait = self.estimate_wait
        metrics.note_calls = self.note_calls
        self._overload = Overload(max_wait)
        self._started = self._expected = 0.0
        self._batch = batch
        self._max_batch = max_batch
        self._wait = wait
        self._queue = queue
        self.arrivals = Arrivals()
        """Requests of this turn of the event loop; see `read_arrivals`."""
        self._waiting: deque[QueuedRequest] = deque()
        self._running: list[QueuedRequest] = []
        self._deadlines = DeadlineTimer(self._expire_requests)
        self._rows = 0
        self._pace = Latency()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._enough = 0
        self._returning = ReturningClients()
        self._busy = False
        self.thread = ModelThread()
        """A synchronous predictor is never called by two threads at once."""
        self._ended: list[tuple[ServedModel, list[QueuedRequest], Sequence[Any], int, float, float]] = []
        self._note_timer: asyncio.TimerHandle | None = None
        self.recorder: Recorder | None = None
        """Gets each batch once it was answered."""
        self._calls: dict[asyncio.Task[None], list[QueuedRequest]] = {}
        self._called_rows = 0
        self._unchecked = max_batch if batch and queue is None and spans is None else 0
        """Waiting rows up to which a request needs no check."""
        self._is_held = False
        """Whether what waits can wait longer than a turn of the event loop."""

    def predict_at_once(self, loaded: ServedModel, part: Part) -> list[Any] | None:
        """Predict a request that is alone in this turn of the event loop.

        None if it must wait in the queue, because others wait or the model is not fast.

        Raises:
            MlappError: the app's code failed.
        """
        # As `is_holding_up`, without a call of it.
        if self._waiting or self._busy or self._wait > 0 or loaded.is_async or not self._pace.expects_fast(part.rows):
            return None
        started = time.perf_counter()
        try:
            rows, features, predictions = predict_batch(loaded, [part], part.rows)
        except Exception:
            self._metrics.failed.inc()
            raise
        seconds = time.perf_counter() - started
        # In the next turn, after the answer is sent: its client does not wait for it.
        call_soon = asyncio.get_running_loop().call_soon
        call_soon(self._note_batch, loaded, [part], [rows], [(features, predictions)], part.rows, 0.0, seconds)
        return rows

    def submit_request(self, loaded: ServedModel, part: Part, done: Done, timeout: float) -> QueuedRequest:
        """Put a request into the queue.

        Args:
            timeout: seconds until `done` gets a 504 and the request leaves the queue.

        Raises:
            HttpError: 503, the queue is full.
        """
        item = CallbackRequest(loaded, part, timeout, done=done)
        self.enqueue_request(item)
        return item

    def enqueue_request(self, item: QueuedRequest) -> None:
        """As `submit_request`.

        Raises:
            HttpError: 503, the queue is full.
        """
        own = item.part.rows
        rows = self._rows + own
        self._overload.offered += own
        if rows > self._unchecked:
            self._check_request(item)
        self._waiting.append(item)
        self._rows = rows
        if not self._scheduled:
            if not self._busy:
                self._schedule_flush()
        elif self._timer is not None and rows >= self._enough:
            self._timer.cancel()
            self._timer = None
            asyncio.get_running_loop().call_soon(self._end_wait)
        if self._is_held:
            self._deadlines.watch_deadline(item.expires)

    def read_arrivals(self) -> None:
        """Queue the requests that arrived in the last turn of the event loop, and flush if nothing is to wait for."""
        first = self._queue_arrivals()
        if first is None:
            return
        if not self._scheduled:
            if not self._busy:
                self._schedule_flush(is_next_turn=True)
        elif self._timer is not None and self._rows >= self._enough:
            self._timer.cancel()
            self._end_wait()
        if self._is_held:
            self._deadlines.watch_deadline(first.expires)

    def _queue_arrivals(self) -> QueuedRequest | None:
        """Queue the arrived requests; returns the first one, whose deadline is the earliest of them."""
        requests, own = self.arrivals.decode_arrivals()
        rows = self._rows + own
        if rows > self._unchecked:
            return self._queue_checked(requests)
        self._overload.offered += own
        self._waiting.extend(requests)
        self._rows = rows
        return requests[0] if requests else None

    def _queue_checked(self, requests: list[QueuedRequest]) -> QueuedRequest | None:
        """As `_queue_arrivals`, for decoded requests that may be too many."""
        queued = []
        for request in requests:
            self._overload.offered += request.part.rows
            try:
                self._check_request(request)
            except HttpError as error:
                request.finish_request(error)
                continue
            self._waiting.append(request)
            self._rows += request.part.rows
            queued.append(request)
        return queued[0] if queued else None

    def _check_request(self, item: QueuedRequest) -> None:
        """Raises:
        HttpError: 503, the queue is full.
        """
        rows = item.part.rows
        if self._rows + rows + self._called_rows > self._max_batch or self._queue is not None or not self._batch:
            self._refuse_if_full(item.loaded, rows)
        if self._spans is not None:
            item.span = self._spans.find_current()

    def estimate_wait(self) -> float:
        """Expected wait in seconds of a new request, by the measured pace of the calls before it."""
        pace, waiting = self._pace, len(self._waiting)
        wait = 0.0
        if self._busy:
            running = asyncio.get_running_loop().time() - self._started
            wait = self._expected - running
            if wait < 0:  # longer than usual: expect as much time again
                wait = running if waiting >= FEW else 0.0
        if not self._batch:
            return wait + waiting * pace.usual
        if self._has_large_requests():
            return wait + waiting * pace.seconds(self._rows // waiting)
        calls = self._rows // self._max_batch
        return wait + calls * pace.seconds(self._max_batch)

    def _has_large_requests(self) -> bool:
        """Whether each waiting request of usual size has a call of its own."""
        return 2 * self._rows > self._max_batch * max(len(self._waiting), 1)

    def _most_clients(self) -> int:
        """Number of requests that can wait without counting as an overload.

        If each has its own call, clients that start one after another look like an overload.
        """
        return FEW if self._batch and not self._has_large_requests() else CLIENTS

    def _refuse_if_full(self, loaded: ServedModel, rows: int) -> None:
        """Raises:
        HttpError: 503, these rows must wait too long.
        """
        before, waiting = self._rows + self._called_rows, len(self._waiting)
        wait = self.estimate_wait()
        if self._queue is not None:
            is_full = before > 0 and before + rows > self._queue
        elif loaded.is_async:
            is_full = len(self._calls) >= CLIENTS and before + rows > self._max_batch
        else:
            is_full = waiting > 0 and wait > self._overload.longest_wait(waiting)
            if self._overload.is_lasting:  # an accepted request waits for at most one call
                is_full |= waiting >= self._most_clients() and (before + rows > self._max_batch or not self._batch)
        if not is_full:
            return
        self._overload.note_refusal()
        self._metrics.rejected.inc()
        after = max(math.ceil(wait), 1)
        raise HttpError(
            503,
            f"{waiting} requests are already waiting; the expected wait is {wait:.2g} seconds. Try again in {after}.",
            headers=((b"retry-after", b"%d" % after),),
        )

    def cancel_request(self, item: QueuedRequest) -> None:
        """Release the place of a client that has left."""
        item.response_complete = True
        if self._remove_request(item) or item.call is not None:
            self._metrics.cancelled.inc()
        self._cancel_idle_call(item)

    def is_holding_up(self, loaded: ServedModel) -> bool:
        """Whether a request can wait longer than a turn of the event loop."""
        return self._busy or self._wait > 0 or loaded.is_async or not self._pace.is_fast

    def record_call(self, seconds: float, rows: int) -> None:
        """Record the duration of a call, to decide where the next one runs."""
        self._pace.add_call(seconds, rows)

    def close_batcher(self) -> None:
        self.note_calls()
        self._deadlines.close_timer()
        self.thread.shutdown(wait=False, cancel_futures=True)

    def _schedule_flush(self, *, is_next_turn: bool = False) -> None:
        """Flush in the next turn of the event loop; if a wait can pay off, when there are enough rows or time is up.

        Args:
            is_next_turn: flush now, where it would be in the next turn.
        """
        self._scheduled = True
        self._is_held = self.is_holding_up(self._waiting[-1].loaded)
        loop = asyncio.get_running_loop()
        wait, returning, rows = self._wait, self._returning, self._rows
        self._enough = self._max_batch
        if not wait and returning.rows > rows:
            self._enough = min(returning.rows, self._max_batch)
            if self._pace.is_fast:
                if is_next_turn:
                    self._flush_when_quiet(0)
                else:
                    loop.call_soon(self._flush_when_quiet, 0)
                return
            wait = returning.remaining_wait(rows, self._pace.usual, loop.time())
        if wait > 0 and rows < self._enough:
            self._timer = loop.call_later(wait, self._end_wait)
        elif is_next_turn:
            self._flush_queue()
        else:
            loop.call_soon(self._flush_queue)

    def _flush_when_quiet(self, seen: int) -> None:
        """Flush if there are enough rows, or the last turn of the event loop brought no more than `seen`."""
        self._queue_arrivals()
        rows = self._rows
        if rows >= self._enough or rows <= seen:
            self._flush_queue()
        else:
            asyncio.get_running_loop().call_soon(self._flush_when_quiet, rows)

    def _end_wait(self) -> None:
        """Flush when there are enough rows, or time is up."""
        self._timer = None
        self._queue_arrivals()
        if not self._wait:
            self._returning.end_wait(self._rows, self._enough, asyncio.get_running_loop().time())
        self._flush_queue()

    def _expire_requests(self) -> None:
        """Fail requests that have waited too long, in the queue or in a call, and watch the others."""
        now = time.perf_counter()
        for item in [*self._waiting, *self._running, *(item for batch in self._calls.values() for item in batch)]:
            if item.response_complete:
                continue
            if item.expires <= now:
                self._expire_request(item)
            else:
                self._deadlines.watch_deadline(item.expires)

    def _expire_request(self, item: QueuedRequest) -> None:
        self._remove_request(item)
        self._metrics.expired.inc()
        item.finish_request(HttpError(504, f"The prediction was not ready within {item.timeout:g} seconds."))
        self._cancel_idle_call(item)

    def _cancel_idle_call(self, item: QueuedRequest) -> None:
        """Cancel the call of an `async def` predictor whose clients have left."""
        call = item.call
        if call is not None and all(other.response_complete for other in self._calls.get(call, ())):
            call.cancel()

    def _remove_request(self, item: QueuedRequest) -> bool:
        """Remove a request from the queue. It stays in a running batch, which others wait for."""
        try:
            self._waiting.remove(item)
        except ValueError:
            return False
        self._rows -= item.part.rows
        return True

    def _take_batch(self) -> tuple[list[QueuedRequest], int]:
        """The next batch and its rows: requests in order, for one version of the model, up to the maximum rows."""
        waiting, rows = self._waiting, self._rows
        loaded = waiting[0].loaded
        if self._batch and loaded.batching and rows <= self._max_batch:
            batch = list(waiting)
            if [item.loaded for item in batch].count(loaded) == len(batch):
                waiting.clear()
                self._rows = 0
                return batch, rows
        first = waiting.popleft()
        batch, rows = [first], first.part.rows
        if self._batch and first.loaded.batching:
            while waiting and waiting[0].loaded is first.loaded:
                if rows + waiting[0].part.rows > self._max_batch:
                    break
                rows += waiting[0].part.rows
                batch.append(waiting.popleft())
        self._rows -= rows
        return batch, rows

    def _flush_queue(self) -> None:
        self._scheduled, self._timer = False, None
        self._queue_arrivals()
        if self._busy or not self._waiting:
            return
        batch, rows = self._take_batch()
        loaded = batch[0].loaded
        waited = time.perf_counter() - batch[0].arrived
        if loaded.is_async:
            call = asyncio.get_running_loop().create_task(self._run_batch_async(loaded, batch, waited))
            self._calls[call] = batch
            self._called_rows += rows
            self._unchecked = 0
            self._deadlines.watch_requests(batch)
            for item in batch:
                item.call = call
            call.add_done_callback(self._finish_async_call)
        elif self._pace.expects_fast(rows):
            results, after, seconds = self._run_batch(loaded, batch, rows)
            self._returning.rows = rows if self._batch else 0
            deliver_request_results(batch, results)
            # In the next turn, after the answers are sent: no client waits for it.
            call_soon = asyncio.get_running_loop().call_soon
            parts = [item.part for item in batch]
            call_soon(self._note_batch, loaded, parts, results, after, rows, waited, seconds)
        else:
            self._busy = self._is_held = True
            loop = asyncio.get_running_loop()
            self.thread.run_soon(self._run_in_thread, loop, loaded, batch, rows, waited)
            # While the thread wakes up.
            self._running = batch
            self._started, self._expected = loop.time(), self._pace.seconds(rows)
            self._note_later()
        if self._waiting and not self._scheduled and not self._busy:
            self._schedule_flush()

    def _finish_async_call(self, call: asyncio.Task[None]) -> None:
        """A call of an `async def` predictor has ended, with or without an error."""
        batch = self._calls.pop(call)
        self._called_rows -= sum(item.part.rows for item in batch)
        for item in batch:
            item.call = None

    def _run_in_thread(
        self, loop: asyncio.AbstractEventLoop, loaded: ServedModel, batch: list[QueuedRequest], rows: int, waited: float
    ) -> None:
        results, after, seconds = self._run_batch(loaded, batch, rows)
        has_callback = loaded.predictor.pipeline.stage("on_predict") is not None
        # The loop waits for the interpreter, so the thread does nothing more for a batch than it must.
        loop.call_soon_threadsafe(self._end_batch, loaded, batch, results, rows, waited, seconds, not has_callback)
        if has_callback:
            self._call_on_predict(loaded, after)
            loop.call_soon_threadsafe(self._free_thread, rows, seconds)

    def _end_batch(
        self,
        loaded: ServedModel,
        batch: list[QueuedRequest],
        results: Sequence[Any],
        rows: int,
        waited: float,
        seconds: float,
        is_free: bool,
    ) -> None:
        """Deliver the results of the thread.

        Args:
            is_free: whether the thread is ready for the next batch.
        """
        has_full_batch = is_free and self._rows >= self._max_batch
        if has_full_batch:  # it runs while these answers are encoded
            self._free_thread(rows, seconds)
            self._flush_queue()
        deliver_request_results(batch, results)
        if is_free and not has_full_batch:
            self._free_thread(rows, seconds)
        self._ended.append((loaded, batch, results, rows, waited, seconds))
        self._note_later()

    def _free_thread(self, rows: int, seconds: float) -> None:
        """The thread is ready for the next batch."""
        self._busy = False
        self._running = []
        self._overload.note_call(rows, len(self._waiting), self._most_clients())
        if self._batch:
            self._returning.note_answers(rows + self._rows, asyncio.get_running_loop().time())
        if self._waiting and not self._scheduled:
            self._schedule_flush()
        self._pace.add_call(seconds, rows)

    def _note_later(self) -> None:
        if self._note_timer is None:
            self._note_timer = asyncio.get_running_loop().call_later(NOTE_DELAY, self.note_calls)

    def note_calls(self) -> None:
        """Record the calls that have ended in the thread, and watch the deadlines of the running one."""
        if self._note_timer is not None:
            self._note_timer.cancel()
            self._note_timer = None
        ended, self._ended = self._ended, []
        for loaded, batch, results, rows, waited, seconds in ended:
            self._metrics.note_batch(rows, waited, seconds)
            self._record(loaded, batch, results, rows, seconds)
        if self._busy:  # those that arrived while the model was fast have no deadline yet
            self._metrics.schedule_update()
            self._deadlines.watch_requests([*self._running, *self._waiting])

    def _run_batch(
        self, loaded: ServedModel, batch: list[QueuedRequest], rows: int
    ) -> tuple[Sequence[Any], list[Any], float]:
        """Predict a batch. Returns the result of each request, the due calls of on_predict, and the seconds."""
        started = time.perf_counter()
        if self._spans is None:
            results, after = try_batch(loaded, batch, rows, self._metrics.failed.inc)
        else:
            with self._spans.open_span(loaded.version, [(item.span, item.part.rows) for item in batch]):
                results, after = try_batch(loaded, batch, rows, self._metrics.failed.inc)
        return results, after, time.perf_counter() - started

    def _note_batch(
        self,
        loaded: ServedModel,
        parts: list[Part],
        results: Sequence[Any],
        after: list[Any],
        rows: int,
        waited: float,
        seconds: float,
    ) -> None:
        """Called after a batch was answered."""
        if self.recorder is not None:
            self.recorder.add(loaded, parts, results, rows, seconds)
        self._overload.offered = 0
        self._metrics.note_batch(rows, waited, seconds)
        self._pace.add_call(seconds, rows)
        self._call_on_predict(loaded, after)

    async def _run_batch_async(self, loaded: ServedModel, batch: list[QueuedRequest], waited: float) -> None:
        started = time.perf_counter()
        parts = [(item.span, item.part.rows) for item in batch]
        with contextlib.nullcontext() if self._spans is None else self._spans.open_span(loaded.version, parts):
            results, after = await try_batch_async(loaded, batch, self._metrics.failed.inc, self.thread)
        seconds = time.perf_counter() - started
        rows = sum(item.part.rows for item in batch)
        self._metrics.note_batch(rows, waited, seconds)
        deliver_request_results(batch, results)
        self._record(loaded, batch, results, rows, seconds)
        if after and loaded.predictor.pipeline.stage("on_predict") is not None:
            await asyncio.get_running_loop().run_in_executor(self.thread, self._call_on_predict, loaded, after)

    def _record(
        self, loaded: ServedModel, batch: list[QueuedRequest], results: Sequence[Any], rows: int, seconds: float
    ) -> None:
        """Pass an answered batch to the recorder."""
        if self.recorder is not None:
            self.recorder.add(loaded, [item.part for item in batch], results, rows, seconds)

    def _call_on_predict(self, loaded: ServedModel, after: list[Any]) -> None:
        for features, predictions in after:
            if not loaded.predictor.run_on_predict(features, predictions):
                self._metrics.callback_failed.inc()
