"""mlapp's own routes: prediction, probes, metrics, and descriptions of the model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mlapp.normalization import estimate_json_values
from mlapp.serving.decoding.json_body import encode_answer, encode_json
from mlapp.serving.inference import streams
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.inference.request_features import decode_request_features, receive_request_body
from mlapp.serving.observability.metrics import MEDIA as METRICS
from mlapp.serving.protocols import invocations, kserve_v1, open_inference
from mlapp.serving.web import page, swagger
from mlapp.serving.web.http import Request, Response, run_until_disconnect

if TYPE_CHECKING:
    from mlapp.serving.application import Application

HTML = b"text/html; charset=utf-8"
EVENTS = b"text/event-stream"


def add_endpoint_routes(application: Application, endpoint: Endpoint) -> None:
    """Add a model, and its routes below its prefix."""
    add_server_routes(application)
    application.endpoints.append(endpoint)
    _add_model_routes(application, endpoint)


def add_server_routes(application: Application) -> None:
    """Add the routes that exist once for any number of models. A second call does nothing."""
    if application.has_route("/livez"):
        return

    async def answer_livez(request: Request) -> Response:
        return Response(b'{"status":"ok"}')

    async def answer_readyz(request: Request) -> Response:
        if not application.stopping:
            await application.start_models()
        status = "ok" if application.is_ready else "stopping" if application.stopping else "starting"
        models = {endpoint.name: endpoint.current.version for endpoint in application.endpoints}
        return Response(encode_json({"status": status, "models": models}), status=200 if application.is_ready else 503)

    async def answer_model_list(request: Request) -> Response:
        entries = [{"model": endpoint.name, "version": endpoint.current.version} for endpoint in application.endpoints]
        return Response(encode_json({"models": entries}))

    application.add_route("GET", "/models", answer_model_list)
    for path in ("/readyz", "/health"):
        application.add_route("GET", path, answer_readyz, is_open=True)
    application.add_route("GET", "/livez", answer_livez, is_open=True)
    _add_document_routes(application, "")
    open_inference.add_v2_routes(application)
    kserve_v1.add_v1_routes(application)


def _add_document_routes(application: Application, prefix: str) -> None:
    """Add the page of the model, and the documents to which it links."""

    async def answer_metrics(request: Request) -> Response:
        return Response(application.metrics.render_text(), METRICS)

    async def answer_openapi(request: Request) -> Response:
        # Imported at first use, to keep the start of the server fast.
        from mlapp.serving.openapi import make_openapi_document

        return Response(encode_json(make_openapi_document(application, request.scope.get("root_path", ""))))

    async def answer_docs(request: Request) -> Response:
        return Response(swagger.PAGE, HTML, headers=[swagger.POLICY])

    async def answer_asset(request: Request) -> Response:
        asset = await asyncio.to_thread(swagger.find_docs_asset, request.tail)
        return Response(asset.content, asset.media, headers=[(b"cache-control", b"public, max-age=86400")])

    async def answer_page(request: Request) -> Response:
        return Response(page.load_model_page(), HTML, headers=[page.POLICY])

    application.add_route("GET", f"{prefix}/", answer_page, is_open=True)
    application.add_route("GET", f"{prefix}/metrics", answer_metrics)
    application.add_route("GET", f"{prefix}/openapi.json", answer_openapi)
    application.add_route("GET", f"{prefix}/docs", answer_docs, is_open=True)
    application.add_route("GET", f"{prefix}/docs/*", answer_asset, is_open=True)


def _add_model_routes(application: Application, endpoint: Endpoint) -> None:
    """Add the routes of a model under its prefix."""
    prefix = endpoint.prefix

    async def answer_predict(request: Request) -> Response:
        return await answer_prediction_request(endpoint, request)

    async def answer_model(request: Request) -> Response:
        return Response(encode_json(endpoint.describe_model()))

    async def redirect_to_page(request: Request) -> Response:
        return Response(status=307, headers=[(b"location", f"{prefix}/".encode())])

    application.add_route("POST", f"{prefix}/predict", answer_predict)
    application.add_route("POST", f"{prefix}/predict/", answer_predict)  # clients of UnionML's FastAPI can send it
    application.add_route("GET", f"{prefix}/model", answer_model)
    invocations.add_invocation_routes(application, endpoint)
    if prefix:
        application.add_route("GET", prefix, redirect_to_page, is_open=True)
        _add_document_routes(application, prefix)


async def answer_prediction_request(endpoint: Endpoint, request: Request) -> Response:
    """Answer `POST /predict` with predictions, or with a stream of events."""
    body, budget = await receive_request_body(endpoint, request)
    model = endpoint.current
    part = await decode_request_features(endpoint, model, request, body, budget)
    if model.is_stream:
        items = endpoint.streams.stream_items(model, part, budget.timeout, encode_json)
        if request.headers.get(b"accept", b"").startswith(b"application/json"):
            collected = await run_until_disconnect(
                streams.collect_stream(items, endpoint.settings.max_body, budget), request.wait_for_disconnect
            )
            return Response(encode_answer(collected, model.tail, is_unionml=part.is_unionml))
        events = streams.encode_stream_events(items)
        # Taken before the status is sent, so that a stream that is refused or fails at once becomes a problem response.
        first = await run_until_disconnect(anext(events), request.wait_for_disconnect)
        return Response(first, EVENTS, headers=[(b"cache-control", b"no-cache")], stream=events)
    part.id = request.identity
    predictions = await endpoint.predict_part(part, budget.remaining, model, request.wait_for_disconnect)

    def encode_body() -> bytes:
        return encode_answer(predictions, model.tail, is_unionml=part.is_unionml)

    return Response(await endpoint.encode_answer(encode_body, estimate_json_values(predictions)))
