"""The server's metrics for a program that answers requests in threads."""

from __future__ import annotations

import threading

from mlapp.serving.observability.metrics import Metrics, ModelMetrics

MAX_PENDING = 64
"""Maximum number of noted requests before they are counted together: updating a metric costs as much as noting one."""


class ThreadMetrics(Metrics):
    """Like `Metrics`, for threads: notes requests under one lock and counts them together, at the latest when read.

    With PROMETHEUS_MULTIPROC_DIR, another process can read the metrics, so each request is counted immediately.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str, int], list[float]] = {}
        self._calls: dict[ModelMetrics, list[tuple[int, float, float]]] = {}
        self._pending = 0

    def begin_request(self) -> None:
        with self._lock:
            self.open_requests += 1

    def end_request(self, method: str, handler: str, status: int, seconds: float) -> None:
        with self._lock:
            self.open_requests -= 1
            self._requests.setdefault((method, handler, status), []).append(seconds)
            is_due = self._add_pending()
        if is_due:
            self._count_pending()

    def note_call(self, model: ModelMetrics, rows: int, wait: float, seconds: float) -> None:
        """Note a call of the predictor: its rows, and the seconds of the wait and of the call."""
        with self._lock:
            self._calls.setdefault(model, []).append((rows, wait, seconds))
            is_due = self._add_pending()
        if is_due:
            self._count_pending()

    def update_metrics(self) -> None:
        self._count_pending()
        super().update_metrics()

    def _add_pending(self) -> bool:
        """Add one noted request; returns whether to count all of them now. The caller holds the lock."""
        self._pending += 1
        return bool(self.shared) or self._pending >= MAX_PENDING

    def _count_pending(self) -> None:
        with self._lock:
            requests, self._requests = self._requests, {}
            calls, self._calls = self._calls, {}
            self._pending = 0
        self.count_requests(requests)
        for model, batches in calls.items():
            model.count_batches(batches)
