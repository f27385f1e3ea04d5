"""Metrics for Prometheus. They follow its conventions: base units, and labels with few values, such as route templates.

With several workers, `PROMETHEUS_MULTIPROC_DIR` is set before prometheus_client is imported. The values are then in
files that every worker reads, and each worker answers with the metrics of all workers.
"""

from __future__ import annotations

import asyncio
import math
import os
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.process_collector import ProcessCollector

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
DELAY = 0.05
"""Seconds between updates of the metrics. Events are counted together, because locking a metric is expensive."""
MEDIA = b"text/plain; version=0.0.4; charset=utf-8"


class ModelMetrics:
    """The metrics of one model, with its labels resolved once."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._model = model
        self._batch_rows = metrics.batch_rows.labels(model)
        self._queue_seconds = metrics.queue_seconds.labels(model)
        self._queue_depth = metrics.queue_depth.labels(model)
        self._model_seconds = metrics.model_seconds.labels(model)
        self._batches: list[tuple[int, float, float]] = []
        self.count_waiting: Callable[[], int] = int
        """Returns the number of waiting requests."""
        self.estimate_wait: Callable[[], float] = float
        """Returns the expected wait of a new request in seconds."""
        self.note_calls: Callable[[], None] = lambda: None
        """Records the calls that have just ended."""
        self._expected_wait = metrics.queue_expected_seconds.labels(model)
        errors = {kind: metrics.errors.labels(model, kind) for kind in ERRORS}
        self.failed = errors["predictor"]
        self.callback_failed = errors["on_predict"]
        self.load_failed = errors["load"]
        self.rejected = errors["queue_full"]
        self.expired = errors["deadline"]
        self.cancelled = errors["client_left"]
        self._version: str | None = None
        metrics.models.append(self)

    def note_batch(self, rows: int, queue_seconds: float, seconds: float) -> None:
        """Record a batch: its rows, its duration, and the wait of its first request. Call it in the event loop.

        Recorded events are counted a little later.
        """
        self._batches.append((rows, queue_seconds, seconds))
        self._metrics.schedule_update()

    def count_batches(self, batches: Sequence[tuple[int, float, float]]) -> None:
        """Count batches, each as for `note_batch`, without delay; from any thread."""
        rows, queue_seconds, seconds = zip(*batches, strict=True)
        observe_all(self._batch_rows, ROWS, rows)
        observe_all(self._queue_seconds, SECONDS, queue_seconds)
        observe_all(self._model_seconds, SECONDS, seconds)

    def schedule_update(self) -> None:
        """Schedule `update_metrics`."""
        self._metrics.schedule_update()

    def update_metrics(self) -> None:
        """Bring the metrics up to date."""
        self.note_calls()
        batches, self._batches = self._batches, []
        if batches:
            self.count_batches(batches)
        self._queue_depth.set(self.count_waiting())
        self._expected_wait.set(self.estimate_wait())

    def set_version(self, version: str | None) -> None:
        """Set the version that answers now."""
        if self._version is not None:
            self._metrics.info.labels(self._model, self._version).set(0)
        self._version = version or "unsaved"
        self._metrics.info.labels(self._model, self._version).set(1)


def observe_all(histogram: Histogram, ends: Sequence[float], values: Sequence[float]) -> None:
    """Observe many values with one lock and one search per non-empty bucket, instead of one per value.

    Args:
        ends: the upper ends of the histogram's buckets, without infinity.
    """
    buckets = getattr(histogram, "_buckets", ())
    total = getattr(histogram, "_sum", None)
    if len(buckets) != len(ends) + 1 or total is None:  # an unknown version of prometheus_client
        for value in values:
            histogram.observe(value)
        return
    total.inc(sum(values))
    ordered = sorted(values)
    before = 0
    for bucket, end in zip(buckets, (*ends, math.inf), strict=True):
        upto = bisect_right(ordered, end, before)
        if upto > before:
            bucket.inc(upto - before)
            before = upto


ERRORS = ("predictor", "on_predict", "load", "queue_full", "deadline", "client_left")


class Metrics:
    """All metrics of one server."""

    def __init__(self) -> None:
        # The `_created` series double the number of series, and nobody uses them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "http_requests_total", "Requests answered.", ["method", "handler", "status"], registry=registry
        )
        self.seconds = Histogram(
            "http_request_duration_seconds",
            "From the request's headers to the end of the answer.",
            ["method", "handler"],
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "http_requests_in_progress", "Requests not yet answered.", registry=registry, multiprocess_mode="livesum"
        )
        self._rpcs = Counter(
            "grpc_server_handled_total",
            "gRPC calls answered.",
            ["grpc_service", "grpc_method", "grpc_code"],
            registry=registry,
        )
        self._rpc_seconds = Histogram(
            "grpc_server_handling_seconds",
            "From a gRPC call's message to its answer.",
            ["grpc_service", "grpc_method"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "mlapp_batch_rows", "Rows of one call of the predictor.", ["model"], buckets=ROWS, registry=registry
        )
        self.queue_depth = Gauge(
            "mlapp_queue_depth", "Requests that wait.", ["model"], registry=registry, multiprocess_mode="livesum"
        )
        self.queue_expected_seconds = Gauge(
            "mlapp_queue_expected_seconds",
            "Expected wait of a new request, from the measured pace.",
            ["model"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.queue_seconds = Histogram(
            "mlapp_queue_seconds", "Wait of a batch's first request.", ["model"], buckets=SECONDS, registry=registry
        )
        self.model_seconds = Histogram(
            "mlapp_model_seconds",
            "Time in the app's functions per batch.",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.errors = Counter("mlapp_errors_total", "Errors by origin.", ["model", "kind"], registry=registry)
        self.info = Gauge(
            "mlapp_model_info",
            "1 for the version that answers.",
            ["model", "version"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        if not self.shared:
            ProcessCollector(registry=registry)
        self.models: list[ModelMetrics] = []
        self.open_requests = 0
        self._answered: dict[tuple[str, str, int], list[float]] = {}
        self._due = False

    def begin_request(self) -> None:
        """Count a request that has started. Call it in the event loop."""
        self.open_requests += 1
        if not self._due:
            self.schedule_update()

    def end_request(self, method: str, handler: str, status: int, seconds: float) -> None:
        """Count an answered request. `handler` is the route's template, or `other`.

        Call it in the event loop. Events are counted in groups with a short delay.
        """
        self.open_requests -= 1
        if not self._due:
            self.schedule_update()
        key = (method, handler, status)
        durations = self._answered.get(key)
        if durations is None:
            self._answered[key] = [seconds]
        else:
            durations.append(seconds)

    def end_requests(self, method: str, handler: str, status: int, seconds: list[float]) -> None:
        """`end_request` for several requests."""
        self.open_requests -= len(seconds)
        self.schedule_update()
        self._answered.setdefault((method, handler, status), []).extend(seconds)

    def end_grpc_call(self, service: str, method: str, code: str, seconds: float) -> None:
        """Count an answered gRPC call. Metric names follow gRPC's own Prometheus interceptors."""
        self._rpcs.labels(service, method, code).inc()
        self._rpc_seconds.labels(service, method).observe(seconds)
        self.schedule_update()

    def schedule_update(self) -> None:
        """Schedule `update_metrics`, which also counts the events that arrive until then."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(DELAY, self.update_metrics)

    def update_metrics(self) -> None:
        """Bring the metrics up to date."""
        self._due = False
        durations, self._answered = self._answered, {}
        self.count_requests(durations)
        for model in self.models:
            model.update_metrics()

    def count_requests(self, durations: Mapping[tuple[str, str, int], Sequence[float]]) -> None:
        """Count answered requests.

        Args:
            seconds: the durations in seconds by method, handler and status.
        """
        for (method, handler, status), seconds in durations.items():
            self.requests.labels(method, handler, str(status)).inc(len(seconds))
            observe_all(self.seconds.labels(method, handler), SECONDS, seconds)
        self.in_flight.set(self.open_requests)

    def render_text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        self.update_metrics()
        if not self.shared:
            return bytes(generate_latest(self.registry))
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return bytes(generate_latest(registry))
