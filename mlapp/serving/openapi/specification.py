"""The whole document: every path that programs call, with the components that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlapp import distribution
from mlapp.serving.openapi import invocations, open_inference, operation, prediction
from mlapp.serving.openapi.answers import PROBLEM
from mlapp.serving.openapi.data import Json

if TYPE_CHECKING:
    from mlapp.serving.application import Application


def document(application: Application, root: str = "") -> Json:
    """The OpenAPI document, with the paths of the user's own FastAPI in it.

    Args:
        root: the path below which the application is mounted.
    """
    paths: Json = {}
    schemas: Json = {"Problem": PROBLEM, "InferenceError": open_inference.ERROR}
    for endpoint in application.endpoints:
        paths.update(prediction.paths(endpoint))
        paths.update(invocations.paths(endpoint))
        paths.update(open_inference.model_paths(endpoint))
        schemas.update(prediction.components(endpoint))
        if not endpoint.current.is_stream:
            schemas.update(open_inference.components(endpoint))
    paths.update(operation.paths())
    paths.update(invocations.server_paths())
    paths.update(open_inference.server_paths())
    first = application.endpoints[0]
    title = ", ".join(endpoint.name for endpoint in application.endpoints)
    found: Json = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": first.current.version or "unsaved"},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if application.settings.api_keys:
        found["components"]["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
        found["security"] = [{"key": []}, {"bearer": []}]
    own = application.own_openapi()
    if own:
        found["paths"] = {**own.get("paths", {}), **paths}
        for kind, components in own.get("components", {}).items():
            found["components"][kind] = {**components, **found["components"].get(kind, {})}
    if root:
        found["servers"] = [{"url": root}]
    found["info"]["x-mlapp"] = distribution.version()
    return found
