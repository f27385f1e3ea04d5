"""The server's metrics for a program that answers requests in threads."""

from __future__ import annotations

import threading

from mlapp.serving.observability.metrics import Metrics


class ThreadMetrics(Metrics):
    """As `Metrics`. A request is counted at once, and in the thread that answers it."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def begin_request(self) -> None:
        with self._lock:
            self._open += 1

    def end_request(self, method: str, handler: str, status: int, seconds: float) -> None:
        with self._lock:
            self._open -= 1
        self.in_flight.set(self._open)
        self.requests.labels(method, handler, str(status)).inc()
        self.seconds.labels(method, handler).observe(seconds)
