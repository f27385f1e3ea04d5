"""uvicorn's protocol with limits for slow and invalid requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mlapp.serving.fast_path.lingering_close import (
    MAX_BODY_BYTES,
    MAX_UNKNOWN_BYTES,
    ClosingTransport,
    LingeringClose,
)
from mlapp.serving.fast_path.request_cycle import FastCycle, encode_problem
from mlapp.serving.web.framing import LARGEST_HEAD, check_request_head, is_websocket, remove_upgrade_offer
from mlapp.serving.web.problems import HttpError, make_http_error
from mlapp.serving.web.request_id import make_request_id

if TYPE_CHECKING:
    from mlapp.serving.application import Application

FRAME = 16
"""Bytes that usually frame a chunk, which can hold a single byte of the body."""
RECEIVE_TIMEOUT = 30.0
"""Maximum seconds to receive a request's headers or a small body, unless `serve.timeout` is shorter."""


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol that limits the time to receive requests and to send answers, and the size of requests."""

    application: ClassVar[Application]
    receive_timeout: ClassVar[float]

    _head = b""
    """The bytes of the request up to its body, if they came in one piece."""
    _is_receiving = False
    """Whether a request has begun and is incomplete."""
    _has_head = False
    """Whether the headers of the current request are complete."""
    _received_bytes = 0
    _received_body_bytes = 0
    _held_bytes = 0
    """Bytes that this connection counts in the server's intake."""
    _has_new_request = False
    """Whether a request has begun since the last check for idleness."""
    _last_arrival = 0.0
    _is_broken = False
    """Whether the rest of the connection's data is ignored."""
    _lingering: LingeringClose | None = None
    """Set when the connection ends before the client has sent its whole request."""
    _receive_timer: asyncio.TimerHandle | None = None
    _idle_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._close_if_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._count_held_bytes(0)
        for timer in (self._receive_timer, self._idle_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        if self._lingering is not None:
            self._lingering.cancel_timer()

    @property
    def is_closing(self) -> bool:
        """Whether no further answer can be sent."""
        return self._lingering is not None or self.transport.is_closing()

    def close_after_answer(self) -> None:
        """Close the connection. If the client still sends, it can read the answer first."""
        if self._lingering is not None:
            return
        if not (self._is_receiving or self._is_broken) or self.transport.is_closing():
            self.transport.close()
            return
        max_bytes = MAX_UNKNOWN_BYTES if self._is_broken else MAX_BODY_BYTES
        self._is_broken, self._is_receiving = True, False
        self._count_held_bytes(0)
        for timer in (self._receive_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._lingering = LingeringClose(self.transport, self.loop, max_bytes)
        self.flow.resume_reading()

    def pause_writing(self) -> None:
        """Close the connection of a client that does not read its answer within `serve.timeout`."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(self.application.settings.timeout, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        super().resume_writing()

    def _close_if_idle(self) -> None:
        """Close a connection that received no data since the last check. Cheaper than uvicorn's timer per request."""
        cycle: Any = self.cycle
        arrival = cycle.arrived if type(cycle) is FastCycle else self._last_arrival
        if (
            self._has_new_request
            or self._is_receiving
            or arrival != self._last_arrival
            or (cycle is not None and not cycle.response_complete)
            or self._idle_timer is None
        ):
            self._has_new_request, self._last_arrival = False, arrival
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)
        else:
            self.timeout_keep_alive_handler()

    def data_received(self, data: bytes) -> None:
        """Give data to the parser, and limit the time and the size of an incomplete request."""
        if self._is_broken:
            if self._lingering is not None:
                self._lingering.discard_data(len(data))
            return
        if self._is_receiving:
            self._received_bytes += len(data)
        self._unset_keepalive_if_required()
        self._feed_parser(data)
        if self._is_receiving:
            cycle: Any = self.cycle
            self._count_held_bytes(self._received_body_bytes if type(cycle) is FastCycle else 0)
            if self._received_bytes - FRAME * self._received_body_bytes > LARGEST_HEAD:
                self._refuse_long_head()
            elif self._receive_timer is None:
                self._receive_timer = self.loop.call_later(self.receive_timeout, self._time_out_request)
        elif self._receive_timer is not None:
            self._count_held_bytes(0)
            self._receive_timer.cancel()
            self._receive_timer = None

    def _count_held_bytes(self, size: int) -> None:
        """Count the bytes of an incomplete body in the server's intake. The ASGI path counts its own."""
        intake = self.application.intake
        intake.held += size - self._held_bytes
        self._held_bytes = size
        cycle: Any = self.cycle
        if size and intake.held > intake.limit and not cycle.response_complete:
            cycle.finish_request(intake.make_full_error())

    def _feed_parser(self, data: bytes) -> None:
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
            cause = error.__context__  # raised by a method of this class
            if cause is None or isinstance(cause, httptools.HttpParserError):
                cause = HttpError(400, "The request is not valid HTTP/1.1.")
            self._refuse_request(cause)
        except HttpError as problem:
            self._refuse_request(problem)

    def _should_upgrade(self) -> bool:
        """Whether the request opens a WebSocket, on a connection without unanswered requests."""
        cycle: Any = self.cycle
        is_free = cycle is None or cycle.response_complete
        return is_free and self._should_upgrade_to_ws() and is_websocket(self.parser.get_method(), self.headers)

    def _become_websocket(self) -> None:
        self._is_receiving = False
        for timer in (self._receive_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._receive_timer = None
        self.handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        self._is_receiving = self._has_new_request = True
        self._has_head = False
        self._received_bytes = self._received_body_bytes = 0
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
        self.start_request()

    def start_request(self) -> None:
        """Start to answer a request, whose headers are complete, in the ASGI application."""
        if not self.url.isascii() or b"#" in self.url or not httptools.parse_url(self.url).path:
            raise HttpError(400, "The request's target is not a path.")
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        # RFC 9110, 10.1.1: HTTP/1.0 has no interim answers.
        self.url, self.expect_100_continue = url, expect and self.parser.get_http_version() == "1.1"
        self.headers += headers
        super().on_headers_complete()
        self.cycle.transport = ClosingTransport(self)  # type: ignore[assignment]

    def on_response_complete(self) -> None:
        """Close after an early answer to `Expect: 100-continue`: the client may or may not send its body then."""
        cycle: Any = self.cycle  # the last request, which can still wait behind the answered one
        if self.expect_100_continue and cycle.more_body and cycle.response_complete:
            self.close_after_answer()
        if self._lingering is None:
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1

    def _refuse_long_head(self) -> None:
        """Refuse a request whose headers, or whose framing of the body, exceed `LARGEST_HEAD`."""
        if self._has_head:
            self._is_broken = True
            self.transport.close()
        else:
            self._refuse_request(HttpError(431, f"The headers have more than {LARGEST_HEAD} bytes."))

    def _refuse_request(self, error: BaseException) -> None:
        """Stop reading, because the next request's start is unknown. Pending requests are still answered."""
        self._is_broken, self._is_receiving = True, False
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
        self.close_after_answer()

    def _time_out_request(self) -> None:
        """Refuse a request that is still incomplete after `receive_timeout` seconds."""
        self._receive_timer = None
        cycle: Any = self.cycle
        if type(cycle) is FastCycle and cycle.more_body and not cycle.response_complete:
            cycle.finish_request(HttpError(408, f"The body did not arrive within {self.receive_timeout:g} seconds."))
        elif cycle is None or cycle.response_complete:
            self.transport.close()
