"""OpenTelemetry traces, if the environment enables them.

Each request has a server span, named by the route's template
(https://opentelemetry.io/docs/specs/semconv/http/http-spans/) or by the gRPC method, which continues the caller's trace
(W3C `traceparent`). Each batch has a span that belongs to its first request and links to all of its requests. Calls
with `app.remote` continue the trace. OpenTelemetry's own `OTEL_*` variables set sampling, endpoint, headers and
resource.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from mlapp import distribution
from mlapp.serving.web.headers import join_headers
from mlapp.serving.web.http import Asgi, Message, Receive, Scope, Send

log = logging.getLogger("mlapp.serving")
ENABLING_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
SERVER_FAULTS = frozenset(("DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE"))
"""The gRPC statuses for errors of the server."""
EXPORTERS = "opentelemetry_traces_exporter"
"""OpenTelemetry's group of entry points."""


class Tracing:
    """Makes spans and exports them.

    Args:
        provider: an OpenTelemetry SDK TracerProvider; shut down on close.
    """

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self.tracer = provider.get_tracer("mlapp", distribution.version())

    async def trace_request(self, answer: Asgi, template: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Run `answer` for a request in a span."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        method, path = scope["method"], scope["path"]
        client = scope.get("client")
        attributes = {
            "http.request.method": method,
            "url.path": path,
            "url.scheme": scope.get("scheme", "http"),
            "http.route": template,
            **({"client.address": client[0]} if client else {}),
        }
        with self.tracer.start_as_current_span(
            f"{method} {template}", _extract_trace_context(scope["headers"]), SpanKind.SERVER, attributes
        ) as span:

            async def send_and_note(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(Status(StatusCode.ERROR))
                await send(message)

            await answer(scope, receive, send_and_note)

    @contextlib.contextmanager
    def trace_grpc_call(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Callable[[str], None]]:
        """Run the block in the span of a gRPC call (https://opentelemetry.io/docs/specs/semconv/rpc/grpc/).

        Yields a function to set the name of the call's status. Without a call of it, the status is OK.

        Args:
            method: the full name: `package.Service/Method`.
            headers: the call's metadata.
        """
        from opentelemetry.trace import SpanKind, Status, StatusCode

        attributes = {"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": "OK"}
        with self.tracer.start_as_current_span(
            method,
            _extract_trace_context(headers),
            SpanKind.SERVER,
            attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:

            def set_failure(status: str) -> None:
                span.set_attribute("rpc.response.status_code", status)
                if status in SERVER_FAULTS:
                    span.set_status(Status(StatusCode.ERROR))

            yield set_failure

    async def flush_spans(self) -> None:
        """Export the remaining spans."""
        await asyncio.to_thread(self._provider.shutdown)


class BatchSpans:
    """The spans of a model's calls.

    Args:
        model: its name.
    """

    def __init__(self, tracing: Tracing, model: str) -> None:
        self._tracer = tracing.tracer
        self._model = model

    def find_current(self) -> Any:
        """The span of the current request."""
        from opentelemetry import trace

        return trace.get_current_span()

    def open_span(self, version: str | None, requests: Sequence[tuple[Any, int]]) -> Any:
        """A context manager for the span of one call, which belongs to the first request and links to all.

        Args:
            version: of the model.
            requests: the span and the rows of each request in the batch.
        """
        from opentelemetry import trace

        spans = [span for span, _ in requests if span is not None]
        return self._tracer.start_as_current_span(
            f"predict {self._model}",
            trace.set_span_in_context(spans[0]) if spans else None,
            links=[trace.Link(span.get_span_context()) for span in spans],
            attributes={
                "mlapp.model": self._model,
                "mlapp.version": version or "",
                "mlapp.batch.requests": len(requests),
                "mlapp.batch.rows": sum(rows for _, rows in requests),
            },
        )


def _extract_trace_context(headers: Iterable[tuple[bytes, bytes]]) -> Any:
    """The caller's trace, from the headers."""
    from opentelemetry import propagate

    lines = [(name.lower(), value) for name, value in headers]
    return propagate.extract(
        {name.decode("latin-1"): value.decode("latin-1") for name, value in join_headers(lines).items()}
    )


def make_tracing(name: str) -> Tracing | None:
    """Tracing configured by the `OTEL_*` variables; None if they do not enable it, or the extra is not installed.

    Args:
        name: name of the service; `OTEL_SERVICE_NAME` overrides it.
    """
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "otlp")
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return None
    if not any(os.environ.get(variable) for variable in ENABLING_VARIABLES):
        return None
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        make_exporter = _find_trace_exporter(exporter)
    except (ImportError, LookupError) as error:
        # Operators set these variables for whole clusters, so a server without the extra continues.
        log.warning("OTEL_* is set, but traces cannot be exported: %s. %s", error, distribution.install_command("otel"))
        return None
    resource = Resource.create({SERVICE_NAME: name}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(make_exporter()))
    return Tracing(provider)


def _find_trace_exporter(exporter: str) -> Any:
    """The exporter's class.

    Raises:
        LookupError: it is not installed.
    """
    from importlib.metadata import entry_points

    if exporter == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        exporter = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    entries = list(entry_points(group=EXPORTERS, name=exporter))
    if not entries:
        raise LookupError(f"there is no exporter '{exporter}'")
    return entries[0].load()
