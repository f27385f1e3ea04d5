"""KServe's v1 protocol, which Vertex AI also uses: `{"instances": …}` to a path with `:predict`.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol and
https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements. Vertex AI names its paths in
`AIP_PREDICT_ROUTE` and `AIP_HEALTH_ROUTE`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mlapp.serving.decoding.json_body import encode_json
from mlapp.serving.protocols.invocations import answer_invocation_request
from mlapp.serving.protocols.open_inference import find_v2_model
from mlapp.serving.web.http import Request, Response
from mlapp.serving.web.problems import HttpError

if TYPE_CHECKING:
    from mlapp.serving.application import Application

PREFIX = "/v1/models"
PREDICT = ":predict"
PREDICT_ROUTE = "AIP_PREDICT_ROUTE"
HEALTH_ROUTE = "AIP_HEALTH_ROUTE"


def add_v1_routes(application: Application) -> None:
    """`/v1/models` for all models of the application, and Vertex AI's two paths if set."""

    async def answer_models(request: Request) -> Response:
        return Response(encode_json({"models": [endpoint.name for endpoint in application.endpoints]}))

    async def answer_model(request: Request) -> Response:
        name, colon, verb = request.tail.rpartition(":")
        endpoint = find_v2_model(application, name if colon else request.tail, None)
        if colon and verb != PREDICT[1:]:
            raise HttpError(404, f"There is no {PREFIX}/{request.tail:.100}.")
        allowed = ("POST",) if colon else ("GET", "HEAD")
        if request.method not in allowed:
            headers = [(b"allow", ", ".join(allowed).encode())]
            raise HttpError(405, f"{PREFIX}/{request.tail:.100} takes {' and '.join(allowed)}.", headers=headers)
        if colon:
            return await answer_invocation_request(endpoint, request)
        ready = application.is_ready
        return Response(encode_json({"name": endpoint.name, "ready": ready}), status=200 if ready else 503)

    async def answer_health(request: Request) -> Response:
        return Response(b"{}", status=200 if application.is_ready else 503)

    async def answer_vertex(request: Request) -> Response:
        return await answer_invocation_request(application.endpoints[0], request)

    application.add_route("GET", PREFIX, answer_models)
    application.add_route("*", f"{PREFIX}/*", answer_model)
    for variable, method, answer in ((PREDICT_ROUTE, "POST", answer_vertex), (HEALTH_ROUTE, "GET", answer_health)):
        path = os.environ.get(variable, "")
        if path.startswith("/") and not application.has_route(path):
            application.add_route(method, path, answer, is_open=method == "GET")
