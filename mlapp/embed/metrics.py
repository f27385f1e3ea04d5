"""The server's metrics for a program that answers requests in threads."""

from __future__ import annotations

import threading

from prometheus_client import Counter, Histogram

from mlapp.serving.observability.metrics import Metrics

MOST_SERIES = 200
"""Maximum number of cached series, because a client can send any method."""


class ThreadMetrics(Metrics):
    """Like `Metrics`, but a request is counted immediately, in the thread that answers it."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def begin_request(self) -> None:
        with self._lock:
            self.open_requests += 1

    def end_request(self, method: str, handler: str, status: int, seconds: float) -> None:
        with self._lock:
            self.open_requests -= 1
        self.in_flight.set(self.open_requests)
        found = self._series.get((method, handler, status))
        if found is None:
            found = self.requests.labels(method, handler, str(status)), self.seconds.labels(method, handler)
            if len(self._series) < MOST_SERIES:
                self._series[method, handler, status] = found
        found[0].inc()
        found[1].observe(seconds)
