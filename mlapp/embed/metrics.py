"""The server's metrics for a program that answers requests in threads."""

from __future__ import annotations

import threading

from mlapp.serving.observability.metrics import Metrics, ModelMetrics

MOST_PENDING = 64
"""Requests after which those that are only noted are counted: each metric costs about as much as noting a request."""


class ThreadMetrics(Metrics):
    """Like `Metrics`, for threads: requests are noted under one lock and counted together, at the latest when read.

    With PROMETHEUS_MULTIPROC_DIR, another process can read them, so each is counted immediately.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._ended: dict[tuple[str, str, int], list[float]] = {}
        self._called: dict[ModelMetrics, list[tuple[int, float, float]]] = {}
        self._pending = 0

    def begin_request(self) -> None:
        with self._lock:
            self.open_requests += 1

    def end_request(self, method: str, handler: str, status: int, seconds: float) -> None:
        with self._lock:
            self.open_requests -= 1
            self._ended.setdefault((method, handler, status), []).append(seconds)
            is_due = self._add_pending()
        if is_due:
            self._count_pending()

    def note_call(self, model: ModelMetrics, rows: int, waited: float, seconds: float) -> None:
        """Note a call of the predictor: its rows, the wait for it and its duration in seconds."""
        with self._lock:
            self._called.setdefault(model, []).append((rows, waited, seconds))
            is_due = self._add_pending()
        if is_due:
            self._count_pending()

    def update_metrics(self) -> None:
        self._count_pending()
        super().update_metrics()

    def _add_pending(self) -> bool:
        """Whether what is noted is to be counted now. The caller holds the lock."""
        self._pending += 1
        return bool(self.shared) or self._pending >= MOST_PENDING

    def _count_pending(self) -> None:
        with self._lock:
            ended, self._ended = self._ended, {}
            called, self._called = self._called, {}
            self._pending = 0
        self.count_requests(ended)
        for model, batches in called.items():
            model.count_batches(batches)
