"""Records a model's calls after their requests are answered: in metrics, in the recorder, and by on_predict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from mlapp.monitoring.recorder import Recorder
from mlapp.schema.part import Part
from mlapp.serving.inference.queued_request import QueuedRequest
from mlapp.serving.inference.served_model import ServedModel
from mlapp.serving.observability.metrics import ModelMetrics

NOTE_DELAY = 0.002
"""Seconds until a call in the thread is recorded: then the next call runs, and the event loop is idle."""


class CallRecords:
    """Records the calls of one model. Use it in the event loop.

    Args:
        on_note: called after calls in the thread are recorded.
    """

    def __init__(self, metrics: ModelMetrics, on_note: Callable[[], None]) -> None:
        self._metrics = metrics
        self._on_note = on_note
        self._ended: list[tuple[ServedModel, list[QueuedRequest], Sequence[Any], int, float, float]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.recorder: Recorder | None = None
        metrics.note_calls = self.note_calls

    def note_later(self) -> None:
        """Schedule `note_calls`."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(NOTE_DELAY, self.note_calls)

    def add_call(
        self,
        model: ServedModel,
        batch: list[QueuedRequest],
        results: Sequence[Any],
        rows: int,
        queue_seconds: float,
        seconds: float,
    ) -> None:
        """Record a call in the thread after `NOTE_DELAY`."""
        self._ended.append((model, batch, results, rows, queue_seconds, seconds))
        self.note_later()

    def note_calls(self) -> None:
        """Record the calls that have ended in the thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        calls, self._ended = self._ended, []
        for model, batch, results, rows, queue_seconds, seconds in calls:
            self.note_call(model, [request.part for request in batch], results, rows, queue_seconds, seconds)
        self._on_note()

    def note_call(
        self,
        model: ServedModel,
        parts: list[Part],
        results: Sequence[Any],
        rows: int,
        queue_seconds: float,
        seconds: float,
    ) -> None:
        """Record a call.

        Args:
            parts: the features of its requests.
            results: for each request its predictions, or an error.
            queue_seconds: seconds for which the first request waited.
            seconds: that the call took.
        """
        self._metrics.note_batch(rows, queue_seconds, seconds)
        if self.recorder is not None:
            self.recorder.record_batch(model, parts, results, rows, seconds)

    def call_on_predict(self, model: ServedModel, calls: list[Any]) -> None:
        """Call the app's on_predict with the predictor's input and result of each call."""
        for features, predictions in calls:
            if not model.predictor.run_on_predict(features, predictions):
                self._metrics.callback_failed.inc()
