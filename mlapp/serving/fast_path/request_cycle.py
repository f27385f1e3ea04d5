"""A prediction request on the fast path: from uvicorn's parser to the batcher without an ASGI scope, task or future.

A task and a scope per request cost more than decoding and encoding together (docs/decisions.md). So a
plain `POST …/predict` with a small JSON body is handled directly after the parser. It is a *cycle* like uvicorn's own,
so uvicorn's pipelining, keep-alive and shutdown apply. All other requests go through ASGI, with the
same codec, batcher and problems.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from mlapp.schema.rows import Part
from mlapp.serving.decoding.json_body import encode_answer
from mlapp.serving.inference.queued_request import QueuedRequest
from mlapp.serving.web.problems import MEDIA, HttpError, make_http_error

if TYPE_CHECKING:
    from mlapp.serving.fast_path.protocol import FastProtocol
    from mlapp.serving.inference.endpoint import Endpoint

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n%b"
ONE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n\r\n"
    b'{"predictions":[%b]%b'
)
"""The answer with one prediction, on a connection that stays open."""
AROUND = len(b'{"predictions":[]')
NO_PART = Part(0)
"""State of a request whose body is not decoded."""
CLOSE = b"connection: close\r\n"


class FastCycle(QueuedRequest):
    """A prediction request, which is also the entry in the batcher's queue.

    The attributes that uvicorn's protocol uses have uvicorn's names. There is no reference cycle, so a request's memory
    is free before the next request, without the garbage collector.
    """

    __slots__ = (
        "disconnected",
        "endpoint",
        "identity",
        "keep_alive",
        "more_body",
        "parts",
        "protocol",
        "response_complete",
        "started",
    )

    def __init__(self, protocol: FastProtocol, endpoint: Endpoint, identity: bytes, keep_alive: bool) -> None:
        self.protocol = protocol
        self.endpoint = endpoint
        self.identity = identity
        self.keep_alive = keep_alive
        self.started = time.perf_counter()
        self.parts: list[bytes] = []
        self.loaded = endpoint.current
        self.part = NO_PART
        self.timeout = endpoint.settings.timeout
        self.span = self.call = None
        self.is_waiting = self.more_body = True
        self.response_complete = self.disconnected = False

    @property
    def message_event(self) -> FastCycle:
        """uvicorn sets this when the connection is lost: see `set`."""
        return self

    def set(self) -> None:
        """Called by uvicorn when the connection is lost: frees the request's place in the queue."""
        if not self.disconnected or self.response_complete:
            return
        self.response_complete = True
        if self.part is not NO_PART:
            self.endpoint.batcher.cancel_request(self)
        self._record_answer(499)

    def begin_request(self, body: bytes) -> None:
        """The body is complete: decode it and enter the queue."""
        self.more_body = False
        batcher = self.endpoint.batcher
        loaded = self.loaded = self.endpoint.current
        try:
            part = loaded.codec.decode_json(body)
            part.id = self.identity
            rows = batcher.predict_at_once(loaded, part) if len(self.protocol.connections) == 1 else None
            self.part = part
            if rows is None:
                self.arrived = time.perf_counter()
                self.expires = self.arrived + self.timeout
                batcher.enqueue_request(self)
                return
        except Exception as error:
            self.finish_request(error)
        else:
            self.finish_request(rows)

    def finish_request(self, result: list[Any] | BaseException, text: bytes | None = None) -> None:
        """Answer with predictions, or with a problem."""
        self.is_waiting = False
        if self.response_complete:
            return
        protocol = self.protocol
        transport = protocol.transport
        if transport.is_closing():  # reset in this turn of the event loop: uvicorn will know in the next
            self.disconnected = True
            self.set()
            return
        # A client that keeps its connection reconnects elsewhere before the server closes.
        keep_alive = self.keep_alive = self.keep_alive and not protocol.application.stopping
        identity, part = self.identity, self.part
        status = 200
        extra = protocol.application.plain_headers
        if text is not None and keep_alive and not part.is_unionml and not extra:
            tail = self.loaded.tail
            transport.write(ONE % (len(text) + len(tail) + AROUND, identity, text, tail))
        else:
            body = b""
            if not isinstance(result, BaseException):
                try:
                    body = encode_answer(result, self.loaded.tail, is_unionml=part.is_unionml)
                except Exception as error:
                    result = error
            if not isinstance(result, BaseException):
                transport.write(OK % (len(body), identity, extra if keep_alive else extra + CLOSE, body))
            else:
                problem = make_http_error(result)
                status = problem.status
                self.keep_alive = keep_alive and not self.more_body
                transport.write(encode_problem(problem, identity, self.keep_alive, extra))
        self.response_complete = True
        self._record_answer(status)
        if not self.keep_alive:
            transport.close()
        protocol.on_fast_response()

    def _record_answer(self, status: int) -> None:
        seconds = time.perf_counter() - self.started
        application, path = self.protocol.application, self.endpoint.path
        application.metrics.end_request("POST", path, status, seconds)
        if application.access_log is not None:
            application.access_log.log_request("POST", path, status, seconds, self.identity, self.protocol.client)


def encode_problem(problem: HttpError, identity: bytes, keep_alive: bool, extra: bytes = b"") -> bytes:
    """A complete HTTP response with a problem.

    Args:
        extra: additional header lines.
    """
    body = problem.problem_body()
    headers = [
        (b"content-type", MEDIA),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", identity),
        *problem.headers,
    ]
    if not keep_alive:
        headers.append((b"connection", b"close"))
    phrase = HTTPStatus(problem.status).phrase.encode()
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %b\r\n%b%b\r\n%b" % (problem.status, phrase, lines, extra, body)
