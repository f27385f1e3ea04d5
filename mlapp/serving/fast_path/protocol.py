"""The HTTP protocol of the server, with a fast path for plain predictions."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from mlapp.serving.decoding.large_json import LARGE
from mlapp.serving.fast_path.limited_protocol import RECEIVE_TIMEOUT, LimitedProtocol
from mlapp.serving.fast_path.request_cycle import HEAD_END, NO_PART, FastCycle
from mlapp.serving.web import request_id
from mlapp.serving.web.http import JSON, parse_media_type
from mlapp.serving.web.request_id import choose_request_id

if TYPE_CHECKING:
    from mlapp.serving.application import Application
    from mlapp.serving.inference.endpoint import Endpoint

ASGI_HEADERS = frozenset(
    (b"content-encoding", b"transfer-encoding", b"expect", b"origin", b"x-request-timeout", b"traceparent")
)
"""Headers of requests that only the ASGI path handles."""
MAX_HEAD_BYTES = 2048
"""Maximum bytes of a cached head."""
MAX_HEADS = 256
"""Maximum number of cached heads. The heads of one client differ in the length of the body."""


class RequestHead(msgspec.Struct, frozen=True, eq=False):
    """A cached request line with its headers. Equal bytes mean the same, so they are parsed only once.

    Clients usually send the same headers with each request, and parsing them costs as much as the rest of the protocol.

    Attributes:
        head: the bytes, up to the body.
        length: of the head.
        size: of head and body.
    """

    head: bytes
    length: int
    size: int
    endpoint: Endpoint
    keep_alive: bool


class FastProtocol(LimitedProtocol):
    """The protocol with the fast path for plain predictions.

    Attributes:
        endpoints: by the path of their predictions.
        heads: cached heads of all connections, by their bytes.
    """

    endpoints: ClassVar[dict[bytes, Endpoint]]
    heads: ClassVar[dict[bytes, RequestHead]]

    _last: RequestHead | None = None
    """Head of the last request if it was answered on the fast path without the parser."""

    def on_fast_response(self) -> None:
        """Continue with the data after the answered request."""
        if self.pipeline:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            if self.flow.read_paused:
                self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        last = self._last
        if last is None or len(data) != last.size or data[: last.length] != last.head:
            last = self._last = None if self._is_receiving or self._is_broken else self._find_cached_head(data)
            if last is None:
                super().data_received(data)
                return
        cycle, endpoint = self.cycle, last.endpoint
        if not ((cycle is None or cycle.response_complete) and endpoint.is_plain) or self.flow.write_paused:
            self._last = None
            super().data_received(data)
            return
        # A complete request with a cached head, on a connection without unanswered requests.
        endpoint.server_metrics.open_requests += 1
        started = perf_counter()
        request = self.cycle = FastCycle(  # type: ignore[assignment]
            endpoint.current,
            NO_PART,
            endpoint.settings.timeout,
            started,
            protocol=self,
            endpoint=endpoint,
            identity=request_id.next_id(),
            keep_alive=last.keep_alive,
            started=started,
        )
        arrivals = endpoint.batcher.arrivals
        requests = arrivals.requests
        if not requests:
            if len(self.connections) == 1:
                request.begin_request(data[last.length :])
                return
            self.loop.call_soon(endpoint.batcher.read_arrivals)
        requests.append(request)
        arrivals.bodies.append(data[last.length :])

    def _find_cached_head(self, data: bytes) -> RequestHead | None:
        """The cached head of a complete request; None if the head is not cached or the request is incomplete."""
        end = data.find(HEAD_END) + len(HEAD_END)
        head = self._head = data[:end]
        cached = self.heads.get(head)
        return cached if cached is not None and len(data) == cached.size else None

    def start_request(self) -> None:
        endpoint = self.endpoints.get(self.url)
        headers = self._read_plain_headers(endpoint) if endpoint is not None else None
        if endpoint is None or headers is None:
            super().start_request()
            return
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        if b"x-request-id" not in headers:  # with an id, this head is not sent again
            self._cache_head(endpoint, keep_alive, int(headers[b"content-length"]))
        endpoint.server_metrics.begin_request()
        self.cycle = FastCycle(  # type: ignore[assignment]
            endpoint.current,
            NO_PART,
            endpoint.settings.timeout,
            protocol=self,
            endpoint=endpoint,
            identity=choose_request_id(headers),
            keep_alive=keep_alive,
            started=perf_counter(),
            parts=[],
            more_body=True,
        )

    def on_body(self, body: bytes) -> None:
        self._received_body_bytes += len(body)
        cycle: Any = self.cycle
        if type(cycle) is FastCycle:
            cycle.parts.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._is_receiving = False
        cycle: Any = self.cycle
        if type(cycle) is not FastCycle:
            super().on_message_complete()
        elif not cycle.response_complete:
            cycle.more_body = False
            cycle.model, cycle.arrived = cycle.endpoint.current, perf_counter()
            body = b"".join(cycle.parts)
            cycle.parts.clear()
            cycle.begin_request(body)

    def _read_plain_headers(self, endpoint: Endpoint) -> dict[bytes, bytes] | None:
        """The request's headers if it can take the fast path: it is plain, and no earlier request is unanswered."""
        if self.parser.get_method() != b"POST" or not self._can_start(endpoint):
            return None
        headers = dict(self.headers)
        if len(headers) != len(self.headers) or not ASGI_HEADERS.isdisjoint(headers):
            return None
        media = headers.get(b"content-type", JSON)
        if media != JSON and parse_media_type(media) != JSON:
            return None
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or not 0 < int(length) < min(LARGE, endpoint.settings.max_body + 1):
            return None
        if not self.application.keys.is_allowed(headers):
            return None
        return headers

    def _can_start(self, endpoint: Endpoint) -> bool:
        cycle = self.cycle
        return (cycle is None or cycle.response_complete) and endpoint.is_plain and not self.flow.write_paused

    def _cache_head(self, endpoint: Endpoint, keep_alive: bool, length: int) -> None:
        """Cache the bytes before the body with their meaning, if their end is unambiguous."""
        head, self._head = self._head, b""
        if not head.startswith(b"POST ") or len(head) > MAX_HEAD_BYTES or head.count(b"\n") != head.count(b"\r\n"):
            return
        if len(self.heads) >= MAX_HEADS:
            self.heads.clear()
        self.heads[head] = RequestHead(head, len(head), len(head) + length, endpoint, keep_alive)


def make_protocol(application: Application) -> type[FastProtocol]:
    """The protocol class for the application's endpoints."""
    attributes = {
        "application": application,
        "receive_timeout": min(RECEIVE_TIMEOUT, application.settings.timeout),
        "endpoints": {endpoint.path.encode(): endpoint for endpoint in application.endpoints},
        "heads": {},
    }
    return type("ServingProtocol", (FastProtocol,), attributes)
