"""The ASGI application: finds a route, and handles ids, API keys, problems, metrics and the access log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mlapp.config import Serve
from mlapp.data.memory import return_free_memory
from mlapp.errors import MlappError
from mlapp.serving.decoding.processes import HUGE
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.inference.streams import encode_stream_error
from mlapp.serving.observability.access_log import AccessLog
from mlapp.serving.observability.metrics import Metrics
from mlapp.serving.observability.tracing import Tracing
from mlapp.serving.web.auth import Keys
from mlapp.serving.web.cors import Cors
from mlapp.serving.web.framing import check_transfer_coding
from mlapp.serving.web.headers import check_single_headers, join_headers
from mlapp.serving.web.http import (
    PORTION,
    Asgi,
    ClientDisconnected,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    run_until_disconnect,
)
from mlapp.serving.web.intake import Intake
from mlapp.serving.web.problems import CLOSE, MEDIA, HttpError, make_http_error
from mlapp.serving.web.request_id import choose_request_id

log = logging.getLogger("mlapp.serving")
Handler = Callable[[Request], Awaitable[Response]]
END_TIMEOUT = 0.5
"""Seconds in which the end of a canceled request is sent."""


class Application:
    """An ASGI application that serves one or more models.

    Args:
        settings: the `serve:` section.
        api: the user's own FastAPI (or any ASGI) application, which answers all other routes.
        tracing: makes the spans; no spans when absent.
    """

    def __init__(self, settings: Serve, api: Any = None, tracing: Tracing | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.endpoints: list[Endpoint] = []
        self.access_log = AccessLog() if settings.access_log else None
        self.stopping = False
        self.on_start: list[Callable[[], Awaitable[None]]] = []
        self.on_close: list[Callable[[], Awaitable[None]]] = []
        self.tracing = tracing
        if tracing is not None:
            self.on_close.append(tracing.flush_spans)
        self._api: Asgi | None = api
        self.intake = Intake(settings)
        self.keys = Keys(settings.api_keys)
        self._cors = Cors(settings.cors)
        self.plain_headers = b"".join(b"%b: %b\r\n" % header for header in self._cors.response_headers({}))
        """Lines in the head of every answer to a request without an origin."""
        self._routes: dict[str, dict[str, Handler]] = {}
        self._prefixes: list[tuple[str, dict[str, Handler]]] = []
        self._open: set[str] = set()
        self._deferred: Callable[[], None] | None = None
        self._loading: asyncio.Lock | None = None

    def add_route(self, method: str, path: str, handler: Handler, *, is_open: bool = False) -> None:
        """Answer a method and path with a handler. A path that ends in `/*` matches every path with that prefix.

        Args:
            method: `*` for any: the handler checks the method.
            is_open: no API key is required, as for probes and for pages that contain no model data.
        """
        if is_open:
            self._open.add(path)
        if path.endswith("/*"):
            methods = dict(self._prefixes).get(path[:-1])
            if methods is None:
                methods = {}
                self._prefixes.append((path[:-1], methods))
        else:
            methods = self._routes.setdefault(path, {})
        methods[method] = handler

    def has_route(self, path: str) -> bool:
        return path in self._routes

    def defer_models(self, add_models: Callable[[], None]) -> None:
        """Add the models at startup, or at the first request if the server sends no startup event."""
        self._deferred = add_models

    async def add_deferred_models(self) -> None:
        """Add the deferred models. A second call does nothing; after a failure the next call tries again.

        Raises:
            MlappError: a model cannot be loaded.
        """
        if self._loading is None:
            self._loading = asyncio.Lock()
        async with self._loading:
            if self._deferred is not None:
                await asyncio.to_thread(self._deferred)
                self._deferred = None

    @property
    def has_api(self) -> bool:
        """Whether there is a user's own application."""
        return self._api is not None

    @property
    def is_ready(self) -> bool:
        """Whether every model has predicted its own example, and the server is not stopping."""
        return not self.stopping and bool(self.endpoints) and all(endpoint.is_ready for endpoint in self.endpoints)

    def make_user_openapi(self) -> dict[str, Any] | None:
        """The OpenAPI document of the user's application; None if it has none."""
        make_document = getattr(self._api, "openapi", None)
        return make_document() if callable(make_document) else None

    async def start_models(self) -> None:
        """Warm every model; a second call does nothing.

        Raises:
            MlappError: a model cannot predict its own example.
        """
        if self.is_ready:
            return
        await self.add_deferred_models()
        for endpoint in self.endpoints:
            await endpoint.start_model()
        self.intake.fit_to_container()
        callbacks, self.on_start = self.on_start, []
        for callback in callbacks:
            await callback()

    async def close_models(self) -> None:
        for endpoint in self.endpoints:
            endpoint.metrics.note_calls()
        callbacks, self.on_close = self.on_close, []
        for callback in callbacks:
            await callback()
        for endpoint in self.endpoints:
            await endpoint.close_endpoint()
        if self.access_log is not None:
            self.access_log.flush_lines()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if self._deferred is not None and _find_mounted_path(scope) != "/livez":
                try:
                    await self.add_deferred_models()
                except MlappError as error:
                    log.error("the model cannot be loaded: %s %s", error.what, error.todo)
                    await _make_application_problem(
                        HttpError(503, f"The model cannot be loaded: {error.what}")
                    ).send_response(send, [])
                    return
            if self.tracing is None:
                await self._answer_application_request(scope, receive, send)
            else:
                await self.tracing.trace_request(
                    self._answer_application_request,
                    self._find_application_route(_find_mounted_path(scope))[0],
                    scope,
                    receive,
                    send,
                )
        elif scope["type"] == "lifespan":
            await self._run_lifespan(scope, receive, send)
        elif self._api is not None and self.keys.is_allowed(join_headers(scope["headers"])):
            await self._api(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.start_models()
        except MlappError as error:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"{error.what} {error.todo}"})
            return
        if self._api is not None:
            await self._api(scope, receive, send)
        else:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        await self.close_models()

    async def _answer_application_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request = Request(scope, receive, self.intake)
        path = _find_mounted_path(scope)
        template, methods, request.tail = self._find_application_route(path)
        identity = request.identity = choose_request_id(request.headers)
        extra = [(b"x-request-id", identity), *self._cors.response_headers(request.headers)]
        if self.stopping:
            # Otherwise a client could send its next request on a connection that the server is about to close.
            extra.append((b"connection", b"close"))
        status = 499
        response: Response | None = None
        self.metrics.begin_request()
        try:
            if methods is None and self._api is not None and self.keys.is_allowed(request.headers):
                template, status = await self._forward_to_user_app(scope, receive, send, extra)
                return
            response = await self._call_application_handler(request, path, template, methods)
            status = response.status
            try:
                if response.stream is None:
                    await self._send_whole_response(response, send, extra)
                else:
                    await run_until_disconnect(response.send_response(send, extra), request.wait_for_disconnect)
            except RuntimeError as error:  # raised by uvloop if the connection was reset in this turn of the event loop
                with contextlib.suppress(asyncio.TimeoutError):  # uvicorn logs an error unless it sees the disconnect
                    await asyncio.wait_for(request.wait_for_disconnect(), 1)
                raise ClientDisconnected from error
        except ClientDisconnected:
            status = 499
        except asyncio.CancelledError:  # uvicorn logs a traceback of each request that it cancels after serve.drain
            if not self.stopping:
                raise
            if response is None:
                status = 503
            with contextlib.suppress(asyncio.TimeoutError):  # the client does not read
                await asyncio.wait_for(_end_cancelled_request(response, send, extra), END_TIMEOUT)
        finally:
            if request.held.release() >= HUGE and self.intake.held < HUGE:
                # The C library keeps freed memory, which the decoders of the next large bodies need.
                asyncio.get_running_loop().run_in_executor(None, return_free_memory)
            seconds = time.perf_counter() - started
            self.metrics.end_request(request.method, template, status, seconds)
            if self.access_log is not None:
                self.access_log.log_request(request.method, path, status, seconds, identity, scope.get("client"))

    async def _send_whole_response(self, response: Response, send: Send, extra: Sequence[tuple[bytes, bytes]]) -> None:
        """Send a response without a stream. A client cannot hold the memory of a large one by reading slowly."""
        if len(response.body) <= PORTION:
            await response.send_response(send, extra)
            return
        try:
            await asyncio.wait_for(response.send_response(send, extra), self.settings.timeout)
        except asyncio.TimeoutError:
            size, timeout = len(response.body), self.settings.timeout
            log.warning("a client did not read its answer of %d bytes within serve.timeout (%g s)", size, timeout)
            raise ClientDisconnected from None

    async def _call_application_handler(
        self, request: Request, path: str, template: str, methods: dict[str, Handler] | None
    ) -> Response:
        try:
            if b"content-length" in request.headers and b"transfer-encoding" in request.headers:
                # RFC 9112, 6.3: two lengths can be a smuggling attempt. Not every HTTP server refuses them.
                raise HttpError(400, "The request has a Content-Length and a Transfer-Encoding.", headers=CLOSE)
            if b"transfer-encoding" in request.headers:
                codings = [value for name, value in request.scope["headers"] if name == b"transfer-encoding"]
                check_transfer_coding(codings, request.scope["http_version"])
            check_single_headers(request.scope["headers"], request.headers)
            if request.headers.get(b"expect", b"100-continue").lower() != b"100-continue":
                raise HttpError(417, "The only expectation that this server meets is 100-continue.", headers=CLOSE)
            if request.method == "OPTIONS" and self._cors.is_preflight(request.headers):
                return self._cors.preflight_response(request.headers)
            if template not in self._open:
                self.keys.check_key(request.headers)
            if methods is None:
                raise HttpError(404, f"There is no {path:.200}. See /docs.")
            handler = methods.get(request.method) or methods.get("*")
            if handler is None and request.method == "HEAD":
                handler = methods.get("GET")
            if handler is None:
                allowed = ", ".join(methods)
                raise HttpError(405, f"{path:.200} takes {allowed}.", headers=[(b"allow", allowed.encode())])
            response = await handler(request)
            request.held.count_answer(len(response.body))
            return response
        except (ClientDisconnected, asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # the last handler: the client gets a problem instead of a broken connection
            return _make_application_problem(make_http_error(error))

    async def _forward_to_user_app(
        self, scope: Scope, receive: Receive, send: Send, extra: Sequence[tuple[bytes, bytes]]
    ) -> tuple[str, int]:
        """Let the user's own application answer; returns the route's template and the status."""
        status = 500

        async def send_and_note(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        assert self._api is not None
        await self._api(scope, receive, send_and_note)
        return getattr(scope.get("route"), "path", "other"), status

    def _find_application_route(self, path: str) -> tuple[str, dict[str, Handler] | None, str]:
        methods = self._routes.get(path)
        if methods is not None:
            return path, methods, ""
        for prefix, methods in self._prefixes:
            if path.startswith(prefix):
                return prefix + "*", methods, path[len(prefix) :]
        return "other", None, ""


def _make_application_problem(problem: HttpError) -> Response:
    """A problem as a response. A function of its own: a frame that holds an error would keep the request's body."""
    return Response(problem.problem_body(), MEDIA, problem.status, list(problem.headers))


async def _end_cancelled_request(response: Response | None, send: Send, extra: Sequence[tuple[bytes, bytes]]) -> None:
    """End the answer to a request that lasts longer than the server may wait when it stops."""
    error = HttpError(503, "The server is stopping. Send the request again.", headers=CLOSE)
    if response is None:
        await _make_application_problem(error).send_response(send, extra)
    elif response.stream is not None:
        await send({"type": "http.response.body", "body": encode_stream_error(error)})


def _find_mounted_path(scope: Scope) -> str:
    """The path relative to the application's mount point."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] or "/" if root and path.startswith(root) else path
