"""mlapp's own routes: prediction, probes, metrics, and what describes the model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mlapp.serving import metrics as prometheus
from mlapp.serving import streams, swagger
from mlapp.serving.bodies import part_of
from mlapp.serving.endpoint import Endpoint
from mlapp.serving.http import Request, Response, unless_left
from mlapp.serving.json_body import encode, encode_answer
from mlapp.serving.openapi import document
from mlapp.serving.page import page
from mlapp.serving.protocols import invocations, open_inference
from mlapp.serving.timeouts import deadline

if TYPE_CHECKING:
    from mlapp.serving.application import Application

HTML = b"text/html; charset=utf-8"
EVENTS = b"text/event-stream"


def add(application: Application, endpoint: Endpoint) -> None:
    """Serve another model. The first without a prefix has the short paths."""
    add_server_routes(application)
    application.endpoints.append(endpoint)
    _add_model_routes(application, endpoint)


def add_server_routes(application: Application) -> None:
    """What there is once, however many models there are; a second call does nothing."""
    if application.has_route("/livez"):
        return

    async def livez(request: Request) -> Response:
        return Response(b'{"status":"ok"}')

    async def readyz(request: Request) -> Response:
        if not application.stopping:
            await application.start()
        status = "ok" if application.is_ready else "stopping" if application.stopping else "starting"
        models = {endpoint.name: endpoint.current.version for endpoint in application.endpoints}
        return Response(encode({"status": status, "models": models}), status=200 if application.is_ready else 503)

    async def models(request: Request) -> Response:
        found = [{"model": endpoint.name, "version": endpoint.current.version} for endpoint in application.endpoints]
        return Response(encode({"models": found}))

    application.route("GET", "/models", models)
    for path in ("/readyz", "/health"):
        application.route("GET", path, readyz, is_open=True)
    application.route("GET", "/livez", livez, is_open=True)
    _add_documents(application, "")
    open_inference.add_routes(application)


def _add_documents(application: Application, prefix: str) -> None:
    """The page, and what it links to."""

    async def scrape(request: Request) -> Response:
        return Response(application.metrics.text(), prometheus.MEDIA)

    async def openapi(request: Request) -> Response:
        return Response(encode(document(application, request.scope.get("root_path", ""))))

    async def docs(request: Request) -> Response:
        return Response(swagger.page(), HTML, headers=[(b"content-security-policy", DOCS_POLICY)])

    async def asset(request: Request) -> Response:
        found = await asyncio.to_thread(swagger.asset, request.tail)
        return Response(found.content, found.media, headers=[(b"cache-control", b"public, max-age=86400")])

    async def show(request: Request) -> Response:
        return Response(page(), HTML, headers=[(b"content-security-policy", PAGE_POLICY)])

    application.route("GET", f"{prefix}/", show, is_open=True)
    application.route("GET", f"{prefix}/metrics", scrape)
    application.route("GET", f"{prefix}/openapi.json", openapi)
    application.route("GET", f"{prefix}/docs", docs, is_open=True)
    application.route("GET", f"{prefix}/docs/*", asset, is_open=True)


def _add_model_routes(application: Application, endpoint: Endpoint) -> None:
    """What each model has, under its prefix."""
    prefix = endpoint.prefix

    async def predict(request: Request) -> Response:
        return await answer(endpoint, request)

    async def describe(request: Request) -> Response:
        return Response(encode(endpoint.describe()))

    async def to_page(request: Request) -> Response:
        return Response(status=307, headers=[(b"location", f"{prefix}/".encode())])

    application.route("POST", f"{prefix}/predict", predict)
    application.route("POST", f"{prefix}/predict/", predict)  # clients of UnionML's FastAPI may send it so
    application.route("GET", f"{prefix}/model", describe)
    invocations.add_routes(application, endpoint)
    if prefix:
        application.route("GET", prefix, to_page, is_open=True)
        _add_documents(application, prefix)


PAGE_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

DOCS_POLICY = (
    b"default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'; connect-src 'self'; "
    b"img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'"
)


async def answer(endpoint: Endpoint, request: Request) -> Response:
    """`POST /predict`."""
    settings = endpoint.settings
    timeout = deadline(request, settings.timeout)
    body = await request.body(settings.max_body, timeout)
    loaded = endpoint.current
    part = await part_of(endpoint, loaded, request.media, body)
    if loaded.is_stream:
        items = endpoint.streams.items(loaded, part, timeout)
        if request.headers.get(b"accept", b"").startswith(b"application/json"):
            found = await unless_left(streams.collected(items), request.left)
            return Response(encode_answer(found, loaded.tail, is_unionml=part.is_unionml))
        events = streams.events(items)
        # Before the status is told: a stream that is refused, or fails at once, is a problem like any other.
        first = await unless_left(anext(events), request.left)
        return Response(first, EVENTS, headers=[(b"cache-control", b"no-cache")], stream=events)
    predictions = await endpoint.predict(part, timeout, loaded, request.left)

    def encode_body() -> bytes:
        return encode_answer(predictions, loaded.tail, is_unionml=part.is_unionml)

    return Response(await endpoint.make(encode_body, part.rows))
