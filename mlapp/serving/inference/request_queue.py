"""The waiting requests of one model, and the limits of the queue."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque

from mlapp.serving.inference.arrivals import Arrivals
from mlapp.serving.inference.deadline_timer import DeadlineTimer
from mlapp.serving.inference.latency import Latency
from mlapp.serving.inference.overload import FEW, Overload
from mlapp.serving.inference.queued_request import QueuedRequest
from mlapp.serving.inference.served_model import ServedModel
from mlapp.serving.observability.metrics import ModelMetrics
from mlapp.serving.observability.tracing import BatchSpans
from mlapp.serving.web.problems import HttpError

CLIENTS = 64
"""Maximum concurrent calls of an `async def` predictor; and waiting requests that are no overload if each has a call of
its own.
"""


class RequestQueue:
    """The base of `Batcher`: holds the waiting requests and refuses those that must wait too long."""

    def __init__(
        self,
        metrics: ModelMetrics,
        *,
        batch: bool,
        max_batch: int,
        queue: int | None,
        max_wait: float,
        spans: BatchSpans | None,
    ) -> None:
        self._metrics = metrics
        self._batch = batch
        self._max_batch = max_batch
        self._queue = queue
        self._spans = spans
        self.arrivals = Arrivals()
        """Requests of this turn of the event loop; see `Batcher.read_arrivals`."""
        self._waiting: deque[QueuedRequest] = deque()
        self._rows = 0
        self._has_own_ids = True
        """Whether no waiting request has keys, and all came through `arrivals`: with ids that this process made, in
        ascending order.
        """
        self._unchecked_rows = max_batch if batch and queue is None and spans is None else 0
        """Number of waiting rows up to which a new request needs no check."""
        self._overload = Overload(max_wait)
        self._latency = Latency()
        self._is_busy = False
        self._call_start = self._expected_seconds = 0.0
        self._running: list[QueuedRequest] = []
        """Requests in the model's thread."""
        self._calls: dict[asyncio.Task[None], list[QueuedRequest]] = {}
        """Requests in calls of an `async def` predictor."""
        self._called_rows = 0
        self._is_held = False
        """Whether requests can wait longer than a turn of the event loop, so that their deadlines are watched."""
        self._deadlines = DeadlineTimer(self._expire_requests)
        metrics.count_waiting = lambda: len(self._waiting)
        metrics.estimate_wait = self.estimate_wait

    def _queue_arrivals(self) -> QueuedRequest | None:
        """Queue the arrived requests; returns the first one, which has the earliest deadline."""
        requests, new_rows = self.arrivals.decode_arrivals()
        rows = self._rows + new_rows
        if self.arrivals.has_keys:
            self._has_own_ids = self.arrivals.has_keys = False
        if rows > self._unchecked_rows:
            return self._queue_checked(requests)
        self._overload.offered += new_rows
        self._waiting.extend(requests)
        self._rows = rows
        if not requests:
            return None
        if self._is_held:
            self._deadlines.watch_deadline(requests[0].expires)
        return requests[0]

    def _queue_checked(self, requests: list[QueuedRequest]) -> QueuedRequest | None:
        """Queue decoded requests one by one, because the queue may be full."""
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
            if self._is_held:
                self._deadlines.watch_deadline(request.expires)
            queued.append(request)
        return queued[0] if queued else None

    def _check_request(self, request: QueuedRequest) -> None:
        """Refuse a request if the queue is full; otherwise note its span.

        Raises:
            HttpError: 503, the queue is full.
        """
        rows = request.part.rows
        if self._rows + rows + self._called_rows > self._max_batch or self._queue is not None or not self._batch:
            self._refuse_if_full(request.model, rows)
        if self._spans is not None:
            request.span = self._spans.find_current()

    def estimate_wait(self) -> float:
        """Expected wait of a new request in seconds, by the measured speed of the model."""
        pace, waiting = self._latency, len(self._waiting)
        wait = 0.0
        if self._is_busy:
            running = asyncio.get_running_loop().time() - self._call_start
            wait = self._expected_seconds - running
            if wait < 0:  # the call takes longer than usual: assume that it is half done
                wait = running if waiting >= FEW else 0.0
        if not self._batch:
            return wait + waiting * pace.usual_seconds
        if self._has_large_requests():
            return wait + waiting * pace.estimate_seconds(self._rows // waiting)
        calls = self._rows // self._max_batch
        return wait + calls * pace.estimate_seconds(self._max_batch)

    def _has_large_requests(self) -> bool:
        """Whether the average waiting request fills more than half of a batch, and so has a call of its own."""
        return 2 * self._rows > self._max_batch * max(len(self._waiting), 1)

    def _choose_client_limit(self) -> int:
        """Number of waiting requests that is no overload.

        If each has its own call, it is higher: there, clients that start one after another look like an overload.
        """
        return FEW if self._batch and not self._has_large_requests() else CLIENTS

    def _refuse_if_full(self, model: ServedModel, rows: int) -> None:
        """Refuse a request with so many rows if it would have to wait too long.

        Raises:
            HttpError: 503, with the expected wait in Retry-After.
        """
        rows_before, waiting = self._rows + self._called_rows, len(self._waiting)
        wait = self.estimate_wait()
        if self._queue is not None:
            is_full = rows_before > 0 and rows_before + rows > self._queue
        elif model.is_async:
            is_full = len(self._calls) >= CLIENTS and rows_before + rows > self._max_batch
        else:
            is_full = waiting > 0 and wait > self._overload.compute_wait_limit(waiting)
            if self._overload.is_lasting:  # an accepted request waits for at most one call
                is_full |= waiting >= self._choose_client_limit() and (
                    rows_before + rows > self._max_batch or not self._batch
                )
        if not is_full:
            return
        self._overload.note_refusal()
        self._metrics.rejected.inc()
        retry = max(math.ceil(wait), 1)
        raise HttpError(
            503,
            f"{waiting} requests are already waiting; the expected wait is {wait:.2g} seconds. Try again in {retry}.",
            headers=((b"retry-after", b"%d" % retry),),
        )

    def _remove_request(self, request: QueuedRequest) -> bool:
        """Remove a request from the queue; False if it is not there, such as in a running batch."""
        try:
            self._waiting.remove(request)
        except ValueError:
            return False
        self._rows -= request.part.rows
        return True

    def _take_batch(self) -> tuple[list[QueuedRequest], int]:
        """Remove and return the next batch, and its rows: requests in order, for one version of the model."""
        waiting, rows = self._waiting, self._rows
        model = waiting[0].model
        if self._batch and model.batching and rows <= self._max_batch:
            batch = list(waiting)
            if [request.model for request in batch].count(model) == len(batch):
                waiting.clear()
                self._rows = 0
                if self._has_own_ids:
                    batch[0].part.own_ids = len(batch)
                self._has_own_ids = True
                return batch, rows
        first = waiting.popleft()
        batch, rows = [first], first.part.rows
        if self._batch and first.model.batching:
            while waiting and waiting[0].model is first.model:
                if rows + waiting[0].part.rows > self._max_batch:
                    break
                rows += waiting[0].part.rows
                batch.append(waiting.popleft())
        self._rows -= rows
        return batch, rows

    def cancel_request(self, request: QueuedRequest) -> None:
        """Remove the request of a client that has disconnected."""
        request.response_complete = True
        if self._remove_request(request) or request.call is not None:
            self._metrics.cancelled.inc()
        self._cancel_idle_call(request)

    def _expire_requests(self) -> None:
        """Fail requests that have waited too long, in the queue or in a call, and watch the others."""
        now = time.perf_counter()
        for request in [
            *self._waiting,
            *self._running,
            *(request for batch in self._calls.values() for request in batch),
        ]:
            if request.response_complete:
                continue
            if request.expires <= now:
                self._expire_request(request)
            else:
                self._deadlines.watch_deadline(request.expires)

    def _expire_request(self, request: QueuedRequest) -> None:
        self._remove_request(request)
        self._metrics.expired.inc()
        request.finish_request(HttpError(504, f"The prediction was not ready within {request.timeout:g} seconds."))
        self._cancel_idle_call(request)

    def _cancel_idle_call(self, request: QueuedRequest) -> None:
        """Cancel the request's call of an `async def` predictor if no request in it needs a result."""
        call = request.call
        if call is not None and all(other.response_complete for other in self._calls.get(call, ())):
            call.cancel()

    def _watch_running(self) -> None:
        """Watch the deadlines of a running call, also those of its requests that arrived while the model was fast."""
        if self._is_busy:
            self._metrics.schedule_update()
            self._deadlines.watch_requests([*self._running, *self._waiting])
