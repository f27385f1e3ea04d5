"""One prediction request on the short way: from uvicorn's parser to the batcher without an ASGI scope, task or future.

Measured, a task and a scope a request cost more than decoding and encoding together (docs/decisions.md). So a
plain `POST …/predict` with a small JSON body is taken out right behind the parser. It is a *cycle* like uvicorn's own,
so that uvicorn's pipelining, keep-alive and shutdown hold for it too. Whatever is not plain goes through ASGI, with the
same codec, batcher and problems.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from mlapp.serving.decoding.json_body import encode_answer
from mlapp.serving.web.problems import MEDIA, HttpError, make_http_error
from mlapp.serving.web.request_id import choose_request_id

if TYPE_CHECKING:
    from mlapp.serving.fast_path.protocol import FastProtocol
    from mlapp.serving.inference.endpoint import Endpoint
    from mlapp.serving.inference.queued_request import QueuedRequest

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n%b"
CLOSE = b"connection: close\r\n"


class FastCycle:
    """One prediction request. The attributes that uvicorn's protocol reads and sets have its names."""

    __slots__ = (
        "disconnected",
        "endpoint",
        "headers",
        "identity",
        "is_unionml",
        "item",
        "keep_alive",
        "loaded",
        "message_event",
        "more_body",
        "parts",
        "protocol",
        "response_complete",
        "started",
    )

    def __init__(
        self, protocol: FastProtocol, endpoint: Endpoint, headers: dict[bytes, bytes], keep_alive: bool
    ) -> None:
        self.protocol = protocol
        self.endpoint = endpoint
        self.headers = headers
        self.identity = choose_request_id(headers)
        self.keep_alive = keep_alive
        self.started = time.perf_counter()
        self.parts: list[bytes] = []
        self.loaded = endpoint.current
        self.item: QueuedRequest | None = None
        self.is_unionml = False
        self.more_body = True
        self.response_complete = False
        self.disconnected = False
        self.message_event = self

    def set(self) -> None:
        """What uvicorn calls when the connection is lost: the request's place becomes free."""
        if not self.disconnected or self.response_complete:
            return
        self.response_complete = True
        if self.item is not None:
            self.endpoint.batcher.cancel_request(self.item)
        self._record_answer(499, self.identity)

    def begin_request(self, body: bytes) -> None:
        """The body is here: decode it and queue up."""
        self.more_body = False
        endpoint = self.endpoint
        loaded = self.loaded = endpoint.current
        try:
            part = loaded.codec.decode_json(body)
            part.id = self.identity
            self.is_unionml = part.is_unionml
            rows = endpoint.batcher.predict_at_once(loaded, part) if len(self.protocol.connections) == 1 else None
            if rows is None:
                self.item = endpoint.batcher.submit_request(
                    loaded, part, self.finish_request, endpoint.settings.timeout
                )
                return
        except Exception as error:
            self.finish_request(error)
        else:
            self.finish_request(rows)

    def finish_request(self, result: list[Any] | BaseException) -> None:
        """Answer with predictions, or with a problem."""
        if self.response_complete:
            return
        protocol = self.protocol
        if protocol.transport.is_closing():  # reset in this turn of the event loop: uvicorn will know in the next
            self.disconnected = True
            self.set()
            return
        # A client that keeps its connection goes elsewhere before the doors close.
        self.keep_alive = self.keep_alive and not protocol.application.stopping
        identity = self.identity
        body = b""
        if isinstance(result, list):
            try:
                body = encode_answer(result, self.loaded.tail, is_unionml=self.is_unionml)
            except Exception as error:
                result = error
        if isinstance(result, list):
            status = 200
            protocol.transport.write(OK % (len(body), identity, b"" if self.keep_alive else CLOSE, body))
        else:
            problem = make_http_error(result)
            status = problem.status
            self.keep_alive = self.keep_alive and not self.more_body
            protocol.transport.write(problem_answer(problem, identity, self.keep_alive))
        self.response_complete = True
        self._record_answer(status, identity)
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_fast_response()

    def _record_answer(self, status: int, identity: bytes) -> None:
        seconds = time.perf_counter() - self.started
        application, path = self.protocol.application, self.endpoint.path
        application.metrics.end_request("POST", path, status, seconds)
        if application.access_log is not None:
            application.access_log.log_request("POST", path, status, seconds, identity, self.protocol.client)


def problem_answer(problem: HttpError, identity: bytes, keep_alive: bool) -> bytes:
    """A whole answer that is a problem."""
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
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (problem.status, phrase, lines, body)
