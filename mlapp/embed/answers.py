"""Framework-independent requests and responses, with the same paths and bodies as the server."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlapp.embed.host import ModelHost
from mlapp.errors import MissingExtraError, MlappError, StoreError
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.truth import Truths
from mlapp.schema.part import Part
from mlapp.serving.decoding.json_body import decode_json, encode_answer, encode_json
from mlapp.serving.decoding.media_types import decode_body
from mlapp.serving.decoding.processes import decode_in_process
from mlapp.serving.inference import streams
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.monitoring import HTML, POLICY, render_monitoring_report
from mlapp.serving.observability.metrics import MEDIA as METRICS
from mlapp.serving.web import problems
from mlapp.serving.web.auth import Keys
from mlapp.serving.web.budget import Budget, read_request_timeout
from mlapp.serving.web.cors import Cors
from mlapp.serving.web.headers import read_content_coding
from mlapp.serving.web.http import JSON, Headers, decompress_body, parse_media_type
from mlapp.serving.web.intake import BYTES_PER_CELL, HeldBody
from mlapp.serving.web.problems import HttpError, make_http_error, too_large_body_error
from mlapp.serving.web.request_id import choose_request_id

log = logging.getLogger("mlapp.serving")
EVENT_STREAM = b"text/event-stream"
MAX_LENGTH_DIGITS = 18
"""Maximum digits of a content-length that is parsed."""
KEYLESS_PATHS = ("/livez", "/readyz", "/health")
"""Paths without an API key, because probes send none."""
PATHS = {
    "/predict": "POST",
    "/predict/": "POST",
    "/feedback": "POST",
    "/monitor": "GET",
    "/model": "GET",
    "/models": "GET",
    "/metrics": "GET",
    "/livez": "GET",
    "/readyz": "GET",
    "/health": "GET",
}
"""Every path with its method."""


@dataclass(frozen=True)
class WebRequest:
    """One request.

    Attributes:
        path: relative to the mount point of the application, such as `/predict`.
        headers: by lower-case name.
        read: returns at most the given number of bytes of the body, and none at its end.
        is_trusted: whether the client was authorized by other means than an API key.
    """

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    read: Callable[[int], bytes]
    is_trusted: bool = False


@dataclass
class Answer:
    """The response to a request. `stream` follows the body; close it when the client disconnects."""

    status: int
    body: bytes
    media: bytes = JSON
    headers: Headers = ()
    stream: Generator[bytes, None, None] | None = None

    def list_headers(self) -> list[tuple[str, str]]:
        """All headers as strings, with the content length if it is known."""
        headers = [("content-type", self.media.decode("latin-1"))]
        headers += [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers]
        if self.stream is None:
            headers.append(("content-length", str(len(self.body))))
        return [(name, value) for name, value in headers if name != "connection"]  # PEP 3333: the web server sets it

    def iterate_body(self) -> StreamBody:
        """The body and the stream after it. `close` ends the stream, even before the first item was read."""
        return StreamBody(self.body, self.stream)


class StreamBody(Iterator[bytes]):
    """The parts of a body. Unlike a generator's, its `close` works even before the first part is read."""

    def __init__(self, first: bytes, stream: Generator[bytes, None, None] | None) -> None:
        self._first: bytes | None = first
        self._stream = stream

    def __next__(self) -> bytes:
        first, self._first = self._first, None
        if first is not None:
            return first
        if self._stream is None:
            raise StopIteration
        return next(self._stream)

    def close(self) -> None:
        """End the stream."""
        self._first = None
        if self._stream is not None:
            self._stream.close()


class ModelSite:
    """The paths of one model: `/predict`, probes, metrics, and descriptions of the model."""

    def __init__(self, host: ModelHost) -> None:
        self.host = host
        self._keys = Keys(host.settings.api_keys)
        self._cors = Cors(host.settings.cors)

    def answer_request(self, request: WebRequest) -> Answer:
        """The response to a request. Never raises: errors become responses, too."""
        start = time.perf_counter()
        metrics = self.host.state.metrics
        identity = choose_request_id(request.headers)
        metrics.begin_request()
        status = 500
        try:
            try:
                answer = self._find_answer(request, identity)
            except Exception as error:  # including bugs: the site must get a response, not an exception
                answer = _make_problem_answer(make_http_error(error))
            answer.headers = [
                *answer.headers,
                (b"x-request-id", identity),
                *self._cors.response_headers(request.headers),
            ]
            status = answer.status
        finally:
            handler = request.path if request.path in PATHS else "other"
            metrics.end_request(request.method, handler, status, time.perf_counter() - start)
        return answer

    def _find_answer(self, request: WebRequest, identity: bytes) -> Answer:
        if request.method == "OPTIONS" and self._cors.is_preflight(request.headers):
            response = self._cors.preflight_response(request.headers)
            headers = [(name, value) for name, value in response.headers if not name.startswith(b"content-")]
            return Answer(response.status, response.body, headers=headers)
        if request.path not in KEYLESS_PATHS and not request.is_trusted:
            self._keys.check_key(request.headers)
        method = PATHS.get(request.path)
        if method is None:
            raise HttpError(404, f"There is no {request.path:.200}. POST to /predict; GET /model describes the model.")
        if request.method not in (method, "HEAD" if method == "GET" else method):
            raise HttpError(405, f"{request.path:.200} takes {method}.", headers=[(b"allow", method.encode())])
        if request.path == "/livez":
            return Answer(200, b'{"status":"ok"}')
        if request.path == "/metrics":
            return Answer(200, self.host.state.loop.run(self._render_site_metrics()), METRICS)
        try:
            endpoint = self.host.open_endpoint()
        except MlappError as error:
            log.error("the model cannot be loaded: %s %s", error.what, error.todo)
            raise HttpError(503, f"The model cannot be loaded: {error.what}") from None
        if request.path == "/feedback":
            return self._answer_feedback(endpoint, request)
        if method == "POST":
            return self._answer_prediction(endpoint, request, identity)
        return self._answer_get(endpoint, request.path)

    def _answer_get(self, endpoint: Endpoint, path: str) -> Answer:
        version = endpoint.current.version
        if path == "/model":
            return Answer(200, encode_json(endpoint.describe_model()))
        if path == "/monitor":
            recorder = self.host.state.recorder
            if recorder is None:
                raise HttpError(404, "Nothing is recorded: monitoring is off in mlapp.yaml.")
            page = render_monitoring_report(endpoint.name, self.host.place, recorder)
            return Answer(200, page, HTML, [(b"content-security-policy", POLICY)])
        if path == "/models":
            return Answer(200, encode_json({"models": [{"model": endpoint.name, "version": version}]}))
        return Answer(200, encode_json({"status": "ok", "models": {endpoint.name: version}}))

    async def _render_site_metrics(self) -> bytes:
        return self.host.state.metrics.render_text()

    def _answer_feedback(self, endpoint: Endpoint, request: WebRequest) -> Answer:
        """Store truths, and respond once they are stored."""
        place, rules = self.host.place, ColumnPrivacy(self.host.app.settings.monitor.columns, endpoint.name)
        if place is None:
            raise HttpError(503, "This program cannot store true values: set monitor.url.")
        held = self._hold_body()
        try:
            body = self._read_body(request, held)
            truths = Truths(place, rules, endpoint.current.baseline)
            valid_truths = truths.check_truths(decode_json(body))
            count = truths.write_truths(valid_truths)
        except (StoreError, MissingExtraError) as error:
            log.error("%s: the true values were not stored: %s", endpoint.name, error.what)
            raise HttpError(503, "The true values cannot be stored now. Send them again.") from None
        finally:
            held.release()
        return Answer(200, encode_json(truths.describe_accepted(count, valid_truths)))

    def _answer_prediction(self, endpoint: Endpoint, request: WebRequest, identity: bytes) -> Answer:
        settings = self.host.settings
        budget = Budget(settings, read_request_timeout(request.headers, settings.timeout))
        held = self._hold_body()
        try:
            body = self._read_body(request, held)
            encoding = read_content_coding(request.headers)
            if encoding:
                body = decompress_body(body, encoding, settings.max_body)
                held.count_at_least(len(body))
            served_model = endpoint.current
            media = parse_media_type(request.headers.get(b"content-type", b""))
            part: Part = decode_in_process(served_model.codec, decode_body, body, budget, media, settings.max_body)
            held.count_at_least(BYTES_PER_CELL * part.rows * served_model.codec.width)
            part.id = identity
            if served_model.is_stream:
                items = endpoint.streams.stream_items(served_model, part, budget.timeout, encode_json)
                return self._answer_stream(items, request, budget, served_model.tail, is_unionml=part.is_unionml)
            predictions = self.host.predict_part(endpoint, served_model, part, budget)
            return Answer(200, encode_answer(predictions, served_model.tail, is_unionml=part.is_unionml))
        finally:
            held.release()

    def _answer_stream(
        self, items: Any, request: WebRequest, budget: Budget, tail: bytes, *, is_unionml: bool
    ) -> Answer:
        if request.headers.get(b"accept", b"").startswith(b"application/json"):
            predictions = self.host.state.loop.run(streams.collect_stream(items, self.host.settings.max_body, budget))
            return Answer(200, encode_answer(predictions, tail, is_unionml=is_unionml))
        events = self.host.state.loop.iterate(streams.encode_stream_events(items))
        first = next(events)  # a stream that fails immediately becomes a problem response
        return Answer(200, first, EVENT_STREAM, [(b"cache-control", b"no-cache")], events)

    def _hold_body(self) -> HeldBody:
        return HeldBody(self.host.state.intake, self.host.state.intake_lock)

    def _read_body(self, request: WebRequest, held: HeldBody) -> bytes:
        """The whole body. Its bytes count against the limit `serve.max_bodies` as they arrive.

        Raises:
            HttpError: 400 if it ends early; 413 if it is too large; 503 if the process holds too many bodies.
        """
        limit = min(self.host.settings.max_body, held.limit)
        length_text = request.headers.get(b"content-length", b"")
        length = int(length_text) if length_text.isdigit() and len(length_text) <= MAX_LENGTH_DIGITS else None
        if length is not None and length > limit:
            raise too_large_body_error(limit)
        max_size = limit + 1 if length is None else length
        parts, size = [], 0
        while size < max_size:
            chunk = request.read(max_size - size)
            if not chunk:
                break
            held.add(len(chunk))
            parts.append(chunk)
            size += len(chunk)
        if size > limit:
            raise too_large_body_error(limit)
        if length is not None and size < length:
            raise HttpError(400, f"The body ended after {size} of {length} bytes.")
        return b"".join(parts)


def _make_problem_answer(problem: HttpError) -> Answer:
    return Answer(problem.status, problem.problem_body(), problems.MEDIA, list(problem.headers))
