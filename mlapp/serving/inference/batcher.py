"""Collects requests into batches: when the model is free, all waiting requests go through the predictor as one table.

A lone request waits for others only if `serve.batch_wait` is set. The first request of a turn of the event loop
schedules a flush in the next turn, and the flush takes all requests that have arrived by then. After a batch of several
rows, the flush is postponed as long as each turn brings requests: clients that were answered together send their next
requests together. While a slow predictor runs in its thread, requests collect. Afterwards the next batch waits briefly
for the answered clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

from mlapp.errors import UserCodeError
from mlapp.monitoring.recorder import Recorder
from mlapp.schema.part import Part
from mlapp.serving.inference.batch_predict import predict_batch, try_batch, try_batch_async
from mlapp.serving.inference.call_records import CallRecords
from mlapp.serving.inference.model_thread import ModelThread
from mlapp.serving.inference.queued_request import (
    CallbackRequest,
    QueuedRequest,
    ResultCallback,
    deliver_request_results,
)
from mlapp.serving.inference.request_queue import RequestQueue
from mlapp.serving.inference.returning_clients import ReturningClients
from mlapp.serving.inference.served_model import ServedModel
from mlapp.serving.observability.metrics import ModelMetrics
from mlapp.serving.observability.tracing import BatchSpans


class Batcher(RequestQueue):
    """The queue of one model, and its calls. Call every method in the event loop.

    Args:
        batch: False passes one request at a time to the predictor.
        max_batch: maximum rows per call. A request with more rows is predicted alone.
        batch_wait: seconds that a request can wait for others; 0 to wait only for the clients of the last batch.
        queue: maximum waiting rows, unless one request alone has more; None for as many as `max_wait` allows. Rows in
            calls of an `async def` predictor count too: these calls run concurrently, so that few requests wait.
        max_wait: maximum expected seconds of waiting, by the measured speed of the model; see `Overload`.
        spans: makes a span of each call of the model.
    """

    def __init__(
        self,
        metrics: ModelMetrics,
        *,
        batch: bool,
        max_batch: int,
        batch_wait: float,
        queue: int | None,
        max_wait: float = 1.0,
        spans: BatchSpans | None = None,
    ) -> None:
        super().__init__(metrics, batch=batch, max_batch=max_batch, queue=queue, max_wait=max_wait, spans=spans)
        self._batch_wait = batch_wait
        self._is_flush_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        """Ends the wait before the next batch; None if there is none."""
        self._wanted_rows = 0
        """Waiting rows at which the next batch starts before time is up."""
        self._returning = ReturningClients()
        self.thread = ModelThread()
        """A synchronous predictor is never called by two threads at once."""
        self._records = CallRecords(metrics, self._watch_running)

    @property
    def recorder(self) -> Recorder | None:
        """Receives each answered batch."""
        return self._records.recorder

    @recorder.setter
    def recorder(self, recorder: Recorder | None) -> None:
        self._records.recorder = recorder

    def predict_at_once(self, model: ServedModel, part: Part) -> list[Any] | None:
        """Predict the only request of this turn of the event loop.

        None if it must go through the queue, because others wait or the model is not fast.

        Raises:
            MlappError: the app's code failed.
        """
        # The conditions of `can_delay_requests`, written out because this runs for every request.
        if self._waiting or self._is_busy or self._batch_wait > 0 or model.is_async:
            return None
        if not self._latency.expects_fast(part.rows):
            return None
        started = time.perf_counter()
        try:
            rows, features, predictions = predict_batch(model, [part], part.rows)
        except Exception:  # any failed call counts, as in `try_batch`
            self._metrics.failed.inc()
            raise
        seconds = time.perf_counter() - started
        # In the next turn, after the answer is sent, so that the client does not wait for it.
        call_soon = asyncio.get_running_loop().call_soon
        call_soon(self._note_batch, model, [part], [rows], [(features, predictions)], part.rows, 0.0, seconds)
        return rows

    def submit_request(self, model: ServedModel, part: Part, on_done: ResultCallback, timeout: float) -> QueuedRequest:
        """Put a request into the queue.

        Args:
            timeout: seconds until `on_done` gets a 504 and the request leaves the queue.

        Raises:
            HttpError: 503, the queue is full.
        """
        request = CallbackRequest(model, part, timeout, on_done=on_done)
        self.enqueue_request(request)
        return request

    def enqueue_request(self, request: QueuedRequest) -> None:
        """Put a request into the queue, and schedule the next batch.

        Raises:
            HttpError: 503, the queue is full.
        """
        request_rows = request.part.rows
        rows = self._rows + request_rows
        self._overload.offered += request_rows
        if rows > self._unchecked_rows:
            self._check_request(request)
        self._waiting.append(request)
        self._has_own_ids = False
        self._rows = rows
        if not self._is_flush_scheduled:
            if not self._is_busy:
                self._schedule_flush()
        elif self._timer is not None and rows >= self._wanted_rows:
            self._timer.cancel()
            self._timer = None
            asyncio.get_running_loop().call_soon(self._end_wait)
        if self._is_held:
            self._deadlines.watch_deadline(request.expires)

    def read_arrivals(self) -> None:
        """Queue the requests that arrived in the last turn of the event loop, and flush unless a wait pays off."""
        first = self._queue_arrivals()
        if first is None:
            return
        if not self._is_flush_scheduled:
            if not self._is_busy:
                self._schedule_flush(is_next_turn=True)
        elif self._timer is not None and self._rows >= self._wanted_rows:
            self._timer.cancel()
            self._end_wait()
        if self._is_held:
            self._deadlines.watch_deadline(first.expires)

    def can_delay_requests(self, model: ServedModel) -> bool:
        """Whether a request can wait longer than a turn of the event loop."""
        return self._is_busy or self._batch_wait > 0 or model.is_async or not self._latency.is_fast

    def record_call(self, seconds: float, rows: int) -> None:
        """Record the duration of a call, by which the next calls run in the event loop or in the thread."""
        self._latency.add_call(seconds, rows)

    def close_batcher(self) -> None:
        self._records.note_calls()
        self._deadlines.close_timer()
        self.thread.shutdown(wait=False, cancel_futures=True)

    def _schedule_flush(self, *, is_next_turn: bool = False) -> None:
        """Flush in the next turn of the event loop; if a wait pays off, when there are enough rows or time is up.

        Args:
            is_next_turn: this is already the next turn: flush now.
        """
        self._is_flush_scheduled = True
        self._is_held = self.can_delay_requests(self._waiting[-1].model)
        loop = asyncio.get_running_loop()
        wait, returning, rows = self._batch_wait, self._returning, self._rows
        self._wanted_rows = self._max_batch
        if not wait and returning.rows > rows:
            self._wanted_rows = min(returning.rows, self._max_batch)
            if self._latency.is_fast:
                if is_next_turn:
                    self._flush_when_quiet(0)
                else:
                    loop.call_soon(self._flush_when_quiet, 0)
                return
            wait = returning.remaining_wait(rows, self._latency.usual_seconds, loop.time())
        if wait > 0 and rows < self._wanted_rows:
            self._timer = loop.call_later(wait, self._end_wait)
        elif is_next_turn:
            self._flush_queue()
        else:
            loop.call_soon(self._flush_queue)

    def _flush_when_quiet(self, rows_before: int) -> None:
        """Flush if there are enough rows, or if the last turn of the event loop added none to `rows_before`."""
        self._queue_arrivals()
        rows = self._rows
        if rows >= self._wanted_rows or rows <= rows_before:
            self._flush_queue()
        else:
            asyncio.get_running_loop().call_soon(self._flush_when_quiet, rows)

    def _end_wait(self) -> None:
        """Flush, because there are enough rows or time is up."""
        self._timer = None
        self._queue_arrivals()
        if not self._batch_wait:
            self._returning.end_wait(self._rows, self._wanted_rows, asyncio.get_running_loop().time())
        self._flush_queue()

    def _flush_queue(self) -> None:
        self._is_flush_scheduled, self._timer = False, None
        self._queue_arrivals()
        if self._is_busy or not self._waiting:
            return
        batch, rows = self._take_batch()
        model = batch[0].model
        queue_seconds = time.perf_counter() - batch[0].arrived
        if model.is_async:
            call = asyncio.get_running_loop().create_task(self._run_batch_async(model, batch, queue_seconds))
            self._calls[call] = batch
            self._called_rows += rows
            self._unchecked_rows = 0
            self._deadlines.watch_requests(batch)
            for request in batch:
                request.call = call
            call.add_done_callback(self._finish_async_call)
        elif self._latency.expects_fast(rows):
            results, calls, seconds = self._run_batch(model, batch, rows)
            self._returning.rows = rows if self._batch else 0
            deliver_request_results(batch, results)
            # In the next turn, after the answers are sent, so that no client waits for it.
            call_soon = asyncio.get_running_loop().call_soon
            parts = [request.part for request in batch]
            call_soon(self._note_batch, model, parts, results, calls, rows, queue_seconds, seconds)
        else:
            self._is_busy = self._is_held = True
            loop = asyncio.get_running_loop()
            self.thread.run_in_model_thread(self._run_in_thread, loop, model, batch, rows, queue_seconds)
            # After `run_in_model_thread`, so that this runs while the thread wakes up.
            self._running = batch
            self._call_start, self._expected_seconds = loop.time(), self._latency.estimate_seconds(rows)
            self._records.note_later()
        if self._waiting and not self._is_flush_scheduled and not self._is_busy:
            self._schedule_flush()

    def _finish_async_call(self, call: asyncio.Task[None]) -> None:
        """Forget a call of an `async def` predictor that has ended, and answer its requests if it failed."""
        batch = self._calls.pop(call)
        self._called_rows -= sum(request.part.rows for request in batch)
        error: BaseException | None = None
        if call.cancelled():  # if a request still waits, not by this class: a predictor can raise a CancelledError
            error = UserCodeError(batch[0].model.predictor.stage.title, asyncio.CancelledError())
        elif call.exception() is not None:
            error = call.exception()
        for request in batch:
            request.call = None
            if error is not None and not request.response_complete:
                self._metrics.failed.inc()
                request.finish_request(error)

    def _run_in_thread(
        self,
        loop: asyncio.AbstractEventLoop,
        model: ServedModel,
        batch: list[QueuedRequest],
        rows: int,
        queue_seconds: float,
    ) -> None:
        results, calls, seconds = self._run_batch(model, batch, rows)
        has_callback = model.predictor.pipeline.stage("on_predict") is not None
        # The event loop waits for the interpreter's lock, so this thread does as little as possible.
        loop.call_soon_threadsafe(
            self._end_batch, model, batch, results, rows, queue_seconds, seconds, not has_callback
        )
        if has_callback:
            self._records.call_on_predict(model, calls)
            loop.call_soon_threadsafe(self._free_thread, rows, seconds)

    def _end_batch(
        self,
        model: ServedModel,
        batch: list[QueuedRequest],
        results: Sequence[Any],
        rows: int,
        queue_seconds: float,
        seconds: float,
        is_free: bool,
    ) -> None:
        """Deliver the results of a call in the thread.

        Args:
            is_free: whether the thread is ready for the next batch.
        """
        has_full_batch = is_free and self._rows >= self._max_batch
        if has_full_batch:  # the next batch runs while these answers are encoded
            self._free_thread(rows, seconds)
            self._flush_queue()
        deliver_request_results(batch, results)
        if is_free and not has_full_batch:
            self._free_thread(rows, seconds)
        self._records.add_call(model, batch, results, rows, queue_seconds, seconds)

    def _free_thread(self, rows: int, seconds: float) -> None:
        """Note that the thread is ready, and schedule the next batch."""
        self._is_busy = False
        self._running = []
        self._overload.note_call(rows, len(self._waiting), self._choose_client_limit())
        if self._batch:
            self._returning.note_answers(rows + self._rows, asyncio.get_running_loop().time())
        if self._waiting and not self._is_flush_scheduled:
            self._schedule_flush()
        self._latency.add_call(seconds, rows)

    def _run_batch(
        self, model: ServedModel, batch: list[QueuedRequest], rows: int
    ) -> tuple[Sequence[Any], list[Any], float]:
        """Predict a batch; returns the result of each request, the calls to report to on_predict, and the seconds."""
        started = time.perf_counter()
        if self._spans is None:
            results, calls = try_batch(model, batch, rows, self._metrics.failed.inc)
        else:
            with self._spans.open_span(model.version, [(request.span, request.part.rows) for request in batch]):
                results, calls = try_batch(model, batch, rows, self._metrics.failed.inc)
        return results, calls, time.perf_counter() - started

    def _note_batch(
        self,
        model: ServedModel,
        parts: list[Part],
        results: Sequence[Any],
        calls: list[Any],
        rows: int,
        queue_seconds: float,
        seconds: float,
    ) -> None:
        """Record a call that ran in the event loop, after its requests are answered."""
        self._records.note_call(model, parts, results, rows, queue_seconds, seconds)
        self._overload.offered = 0
        self._latency.add_call(seconds, rows)
        self._records.call_on_predict(model, calls)

    async def _run_batch_async(self, model: ServedModel, batch: list[QueuedRequest], queue_seconds: float) -> None:
        started = time.perf_counter()
        parts = [(request.span, request.part.rows) for request in batch]
        with contextlib.nullcontext() if self._spans is None else self._spans.open_span(model.version, parts):
            results, calls = await try_batch_async(model, batch, self._metrics.failed.inc, self.thread)
        seconds = time.perf_counter() - started
        rows = sum(request.part.rows for request in batch)
        deliver_request_results(batch, results)
        self._records.note_call(model, [request.part for request in batch], results, rows, queue_seconds, seconds)
        if calls and model.predictor.pipeline.stage("on_predict") is not None:
            await asyncio.get_running_loop().run_in_executor(self.thread, self._records.call_on_predict, model, calls)
