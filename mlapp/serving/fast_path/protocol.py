"""uvicorn's protocol with a fast path for plain predictions, and with limits for slow clients."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mlapp.serving.decoding.large_json import LARGE
from mlapp.serving.fast_path.request_cycle import HEAD_END, NO_PART, FastCycle, encode_problem
from mlapp.serving.web import request_id
from mlapp.serving.web.framing import LARGEST_HEAD, check_request_head, is_websocket, remove_upgrade_offer
from mlapp.serving.web.http import JSON, parse_media_type
from mlapp.serving.web.problems import HttpError, make_http_error
from mlapp.serving.web.request_id import choose_request_id, make_request_id

if TYPE_CHECKING:
    from mlapp.serving.application import Application
    from mlapp.serving.inference.endpoint import Endpoint

NOT_PLAIN = frozenset(
    (b"content-encoding", b"transfer-encoding", b"expect", b"origin", b"x-request-timeout", b"traceparent")
)
"""Headers of requests that only the ASGI path handles."""
LONGEST_HEAD = 2048
"""Maximum bytes of a cached head."""
MOST_HEADS = 256
"""Maximum number of cached heads. The heads of one client differ in the length of the body."""
FRAME = 16
"""Bytes that usually frame a chunk, which can hold a single byte of the body."""
SLOW_READ = 30.0
"""Maximum seconds to receive a request's headers or a small body, unless `serve.timeout` is shorter."""


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


class FastProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the fast path, and with timeouts for receiving requests and sending answers."""

    application: ClassVar[Application]
    fast: ClassVar[dict[bytes, Endpoint]]
    patience: ClassVar[float]
    heads: ClassVar[dict[bytes, RequestHead]]

    _last: RequestHead | None = None
    """Head of the last request; None while a request is incomplete or invalid."""
    _head = b""
    _reading = False
    _has_head = False
    _read = 0
    _read_body = 0
    _used = False
    _last_arrival = 0.0
    _is_broken = False
    _held = 0
    _read_timer: asyncio.TimerHandle | None = None
    _idle_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_idleness()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._hold(0)
        for timer in (self._read_timer, self._idle_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        """Close the connection of a client that does not read its answer within `serve.timeout`."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(self.application.settings.timeout, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        super().resume_writing()

    def _watch_idleness(self) -> None:
        """Close a connection that received no data since the last check. Cheaper than uvicorn's timer per request."""
        cycle: Any = self.cycle
        arrival = cycle.arrived if type(cycle) is FastCycle else self._last_arrival
        if (
            self._used
            or self._reading
            or arrival != self._last_arrival
            or (cycle is not None and not cycle.response_complete)
            or self._idle_timer is None
        ):
            self._used, self._last_arrival = False, arrival
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._watch_idleness)
        else:
            self.timeout_keep_alive_handler()

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
            if self._is_broken:
                return
            last = None if self._reading else self._find_known_head(data)
            if last is None:
                self._parse_data(data)
                return
            self._last = last
        cycle, endpoint = self.cycle, last.endpoint
        if not ((cycle is None or cycle.response_complete) and endpoint.is_plain) or self.flow.write_paused:
            self._parse_data(data)
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

    def _find_known_head(self, data: bytes) -> RequestHead | None:
        """The cached head of a complete request; None if the head is not cached or the request is incomplete."""
        end = data.find(HEAD_END) + len(HEAD_END)
        head = self._head = data[:end]
        known = self.heads.get(head)
        return known if known is not None and len(data) == known.size else None

    def _parse_data(self, data: bytes) -> None:
        """Give data to the parser, and limit the time and the size of an incomplete request."""
        self._last = None
        if self._reading:
            self._read += len(data)
        self._unset_keepalive_if_required()
        self._parse(data)
        if self._reading:
            running: Any = self.cycle
            self._hold(self._read_body if type(running) is FastCycle else 0)
            if self._read - FRAME * self._read_body > LARGEST_HEAD:
                self._refuse_long_head()
            elif self._read_timer is None:
                self._read_timer = self.loop.call_later(self.patience, self._give_up_request)
        elif self._read_timer is not None:
            self._hold(0)
            self._read_timer.cancel()
            self._read_timer = None

    def _hold(self, size: int) -> None:
        """Count the bytes of an incomplete body in the server's intake. The ASGI path counts its own."""
        intake = self.application.intake
        intake.held += size - self._held
        self._held = size
        cycle: Any = self.cycle
        if size and intake.held > intake.limit and not cycle.response_complete:
            cycle.finish_request(intake.make_full_error())

    def _parse(self, data: bytes) -> None:
        """Feed the parser. It stops at a head with an upgrade offer; a new parser continues without the offer."""
        chunks: list[bytes | memoryview] = [data]
        try:
            while chunks:
                chunk = chunks.pop()
                try:
                    self.parser.feed_data(chunk)
                except httptools.HttpParserUpgrade as offer:
                    if self._should_upgrade():
                        self._become_websocket()
                        return
                    self._head = b""
                    method, version = self.parser.get_method(), self.parser.get_http_version()
                    head = remove_upgrade_offer(method, self.url, version, self.headers)
                    self.parser = httptools.HttpRequestParser(self)
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                    chunks += [memoryview(chunk)[offer.args[0] :], head]
        except httptools.HttpParserError as error:
            found = error.__context__
            if found is None or isinstance(found, httptools.HttpParserError):
                found = HttpError(400, "The request is not valid HTTP/1.1.")
            self._break_off(found)
        except HttpError as problem:
            self._break_off(problem)

    def _should_upgrade(self) -> bool:
        """Whether the request opens a WebSocket, on a connection without unanswered requests."""
        cycle: Any = self.cycle
        is_free = cycle is None or cycle.response_complete
        return is_free and self._should_upgrade_to_ws() and is_websocket(self.parser.get_method(), self.headers)

    def _become_websocket(self) -> None:
        self._reading = False
        for timer in (self._read_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._read_timer = None
        self.handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        self._reading = self._used = True
        self._has_head = False
        self._read = self._read_body = 0
        # uvicorn creates a scope here, which only the ASGI path needs.
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # trailers of a chunked body are ignored: the headers are already in use
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._has_head = True
        check_request_head(self.url, self.headers, self.parser.get_http_version())
        if self.parser.should_upgrade() and not self._should_upgrade():
            return  # the parser stops here: see `_feed_parser`
        endpoint = self.fast.get(self.url)
        headers = self._read_plain_headers(endpoint) if endpoint is not None else None
        if endpoint is not None and headers is not None:
            keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
            if b"x-request-id" not in headers:  # with an id, this head is not sent again
                self._remember_head(endpoint, keep_alive, int(headers[b"content-length"]))
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
        else:
            if not self.url.isascii() or not httptools.parse_url(self.url).path:
                raise HttpError(400, "The request's target is not a path.")
            url, given, expect = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = url, expect
            self.headers += given
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._read_body += len(body)
        cycle: Any = self.cycle
        if type(cycle) is FastCycle:
            cycle.parts.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._reading = False
        cycle: Any = self.cycle
        if type(cycle) is not FastCycle:
            super().on_message_complete()
        elif not cycle.response_complete:
            cycle.more_body = False
            cycle.loaded, cycle.arrived = cycle.endpoint.current, perf_counter()
            body = b"".join(cycle.parts)
            cycle.parts.clear()
            cycle.begin_request(body)

    def _read_plain_headers(self, endpoint: Endpoint) -> dict[bytes, bytes] | None:
        """The request's headers if it can take the fast path: it is plain, and no earlier request is unanswered."""
        if self.parser.get_method() != b"POST" or not self._is_free_for(endpoint):
            return None
        headers = dict(self.headers)
        if not NOT_PLAIN.isdisjoint(headers):
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

    def _is_free_for(self, endpoint: Endpoint) -> bool:
        cycle = self.cycle
        return (cycle is None or cycle.response_complete) and endpoint.is_plain and not self.flow.write_paused

    def _remember_head(self, endpoint: Endpoint, keep_alive: bool, length: int) -> None:
        """Cache the bytes before the body with their meaning, if their end is unambiguous."""
        head, self._head = self._head, b""
        if not head.startswith(b"POST ") or len(head) > LONGEST_HEAD or head.count(b"\n") != head.count(b"\r\n"):
            return
        if len(self.heads) >= MOST_HEADS:
            self.heads.clear()
        self.heads[head] = RequestHead(head, len(head), len(head) + length, endpoint, keep_alive)

    def on_response_complete(self) -> None:
        """Close after an early answer to `Expect: 100-continue`: the client may or may not send its body then."""
        cycle: Any = self.cycle
        if self.expect_100_continue and cycle.more_body:
            self.transport.close()
        super().on_response_complete()

    def _refuse_long_head(self) -> None:
        """Refuse a request whose headers, or whose framing of the body, exceed `LARGEST_HEAD`."""
        if self._has_head:
            self._is_broken = True
            self.transport.close()
        else:
            self._break_off(HttpError(431, f"The headers have more than {LARGEST_HEAD} bytes."))

    def _break_off(self, error: BaseException) -> None:
        """Stop reading, because the next request's start is unknown. Pending requests are still answered."""
        self._is_broken, self._reading = True, False
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False
                return
            if self.pipeline or cycle.response_started:
                self.transport.close()
                return
        problem = make_http_error(error)
        self.transport.write(encode_problem(problem, make_request_id(), keep_alive=False))
        self.transport.close()

    def _give_up_request(self) -> None:
        """Refuse a request that is still incomplete after `patience` seconds."""
        self._read_timer = None
        cycle: Any = self.cycle
        if type(cycle) is FastCycle and cycle.more_body and not cycle.response_complete:
            cycle.finish_request(HttpError(408, f"The body did not arrive within {self.patience:g} seconds."))
        elif cycle is None or cycle.response_complete:
            self.transport.close()


def make_protocol(application: Application) -> type[FastProtocol]:
    """The protocol class for the application's endpoints."""
    fast = {endpoint.path.encode(): endpoint for endpoint in application.endpoints}
    patience = min(SLOW_READ, application.settings.timeout)
    known = {"application": application, "fast": fast, "patience": patience}
    return type("ServingProtocol", (FastProtocol,), {**known, "heads": {}})
