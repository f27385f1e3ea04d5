"""A prediction request on the fast path: from uvicorn's parser to the batcher without an ASGI scope, task or future.

A task and a scope per request cost more than decoding and encoding together (docs/decisions/requests.md). So a
plain `POST …/predict` with a small JSON body is handled directly after the parser. It is a *cycle* like uvicorn's own,
so uvicorn's pipelining, keep-alive and shutdown apply. All other requests go through ASGI, with the
same codec, batcher and problems.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from mlapp.normalization import MANY, SHORT, estimate_json_values
from mlapp.schema.part import Part
from mlapp.serving.decoding.json_body import encode_answer
from mlapp.serving.fast_path.large_answer import start_large_answer
from mlapp.serving.inference.queued_request import QueuedRequest
from mlapp.serving.web.http import PORTION
from mlapp.serving.web.problems import MEDIA, HttpError, make_http_error

if TYPE_CHECKING:
    from mlapp.serving.fast_path.protocol import FastProtocol
    from mlapp.serving.inference.endpoint import Endpoint

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n%b"
START = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: "
HEAD_END = b"\r\n\r\n"
OPENING = b'{"predictions":['
END = b"\0"
"""Separates the bodies of a batch while they are built. No JSON contains it."""
NO_PART = Part(0)
"""The part of a request whose body is not decoded yet."""
CLOSE = b"connection: close\r\n"


class Starts(dict[int, bytes]):
    """The head of an answer up to its request id, by the bytes of `HEAD_END` and the body: few lengths occur."""

    def __missing__(self, size: int) -> bytes:
        self[size] = start = START % (size - len(HEAD_END))
        return start


STARTS = Starts()


class FastCycle(QueuedRequest, kw_only=True):
    """A prediction request, which is also the entry in the batcher's queue.

    The attributes that uvicorn's protocol uses have uvicorn's names. It is in no reference cycle, so that its memory is
    freed without the garbage collector.

    Attributes:
        started: time of `perf_counter` at which its headers were complete.
        parts: a list of the received pieces of an incomplete body.
    """

    protocol: FastProtocol
    endpoint: Endpoint
    identity: bytes
    keep_alive: bool
    started: float
    parts: Any = None
    more_body: bool = False
    disconnected: bool = False

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
        """Decode the body and enter the queue; a lone request is predicted at once if its model is fast."""
        model, batcher = self.model, self.endpoint.batcher
        try:
            part = self.part = model.codec.decode_json(body)
            part.id = self.identity
            rows = batcher.predict_at_once(model, part) if len(self.protocol.connections) == 1 else None
            if rows is None:
                batcher.enqueue_request(self)
                return
        except Exception as error:  # no caller answers it: uvicorn's parser calls this
            self.finish_request(error)
        else:
            self.finish_request(rows)

    def finish_request(self, result: list[Any] | BaseException) -> None:
        """Answer with predictions, or with a problem."""
        if self.response_complete:
            return
        transport = self.protocol.transport
        if transport.is_closing():  # reset in this turn of the event loop; uvicorn notices it in the next one
            self.disconnected = True
            self.set()
            return
        if not isinstance(result, BaseException):
            if result and type(result[0]) not in SHORT and estimate_json_values(result) > MANY:
                start_large_answer(self, result)
                return
            try:
                body = encode_answer(result, self.model.tail, is_unionml=self.part.is_unionml)
            except Exception as error:  # a user's predictions can be impossible to encode in many ways
                result = error
            else:
                if len(body) > PORTION:
                    start_large_answer(self, body)
                    return
                transport.write(self.make_head(len(body), body))
                self.end_response(200)
                return
        problem = make_http_error(result)
        self.keep_alive = self.keep_alive and not (self.more_body or self.protocol.application.stopping)
        extra = self.protocol.application.plain_headers
        transport.write(encode_problem(problem, self.identity, self.keep_alive, extra))
        self.end_response(problem.status)

    def make_head(self, size: int, body: bytes = b"") -> bytes:
        """The head of an answer with status 200, and its body.

        Args:
            size: bytes of the whole body.
        """
        application = self.protocol.application
        # While the server stops, clients are told to reconnect, which takes them to another replica.
        self.keep_alive = self.keep_alive and not application.stopping
        extra = application.plain_headers if self.keep_alive else application.plain_headers + CLOSE
        return OK % (size, self.identity, extra, body)

    def end_response(self, status: int) -> None:
        """Record the answer, which is written, and continue with the connection."""
        self.response_complete = True
        self._record_answer(status)
        if not self.keep_alive:
            self.protocol.close_after_answer()
        self.protocol.on_fast_response()

    @classmethod
    def finish_batch(cls, batch: Sequence[QueuedRequest], rows: Sequence[Any], numbers: bytes) -> None:
        """`finish_request` for each request, with one call of the metrics and the log for all plain ones."""
        first: Any = batch[0]
        application, tail = first.protocol.application, first.model.tail
        if application.stopping or application.plain_headers:
            super().finish_batch(batch, rows, numbers)
            return
        opening, end = HEAD_END + OPENING, b"]" + tail
        # One call builds all bodies, instead of a few calls for each.
        bodies = b"".join((opening, numbers.replace(b",", end + END + opening), end)).split(END)
        remaining: list[tuple[QueuedRequest, Any]] = []
        resumed = 0
        for item, row, body in zip(batch, rows, bodies, strict=True):
            if type(item) is FastCycle and not item.response_complete and item.keep_alive and not item.part.is_unionml:
                protocol = item.protocol
                transport = protocol.transport
                if not transport.is_closing():
                    transport.write(STARTS[len(body)] + item.identity + body)
                    item.response_complete = True
                    if protocol.pipeline or protocol.flow.read_paused:
                        protocol.on_fast_response()
                        resumed += 1
                    continue
            remaining.append((item, row))
        answered: Any = batch
        if remaining:
            remaining_ids = {id(item) for item, _ in remaining}
            answered = [item for item in batch if id(item) not in remaining_ids]
        if answered:
            answered[0].protocol.server_state.total_requests += len(answered) - resumed
            _record_request_cycle_answers(answered)
        for item, row in remaining:
            item.finish_request([row])

    def _record_answer(self, status: int) -> None:
        seconds = time.perf_counter() - self.started
        application, path = self.protocol.application, self.endpoint.path
        application.metrics.end_request("POST", path, status, seconds)
        if application.access_log is not None:
            application.access_log.log_request("POST", path, status, seconds, self.identity, self.protocol.client)


def _record_request_cycle_answers(cycles: Sequence[FastCycle]) -> None:
    """Record requests of one endpoint that have just been answered with status 200."""
    now = time.perf_counter()
    application, path = cycles[0].protocol.application, cycles[0].endpoint.path
    application.metrics.end_requests("POST", path, 200, [now - cycle.started for cycle in cycles])
    if application.access_log is not None:
        requests = [(now - cycle.started, cycle.identity, cycle.protocol.client) for cycle in cycles]
        application.access_log.log_requests("POST", path, 200, requests)


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
    if not keep_alive and b"connection" not in dict(headers):
        headers.append((b"connection", b"close"))
    phrase = HTTPStatus(problem.status).phrase.encode()
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %b\r\n%b%b\r\n%b" % (problem.status, phrase, lines, extra, body)
