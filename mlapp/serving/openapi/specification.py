"""The whole document: all API paths, with their shared components."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlapp import distribution
from mlapp.serving.openapi import (
    invocation_paths,
    monitoring_paths,
    open_inference_paths,
    operator_paths,
    prediction_paths,
)
from mlapp.serving.openapi.data_schemas import Json
from mlapp.serving.openapi.open_inference_schemas import ERROR, describe_v2_components
from mlapp.serving.openapi.responses import PROBLEM

if TYPE_CHECKING:
    from mlapp.serving.application import Application


def make_openapi_document(application: Application, root: str = "") -> Json:
    """The OpenAPI document, including the paths of the user's own FastAPI application.

    Args:
        root: the path below which the application is mounted.
    """
    paths: Json = {}
    schemas: Json = {"Problem": PROBLEM, "InferenceError": ERROR}
    for endpoint in application.endpoints:
        paths.update(prediction_paths.describe_prediction_paths(endpoint))
        if application.has_route(f"{endpoint.prefix}/feedback"):
            paths.update(monitoring_paths.describe_monitoring_paths(endpoint))
            schemas["Truth"] = monitoring_paths.TRUTH
        paths.update(invocation_paths.describe_invocation_paths(endpoint))
        paths.update(invocation_paths.describe_v1_paths(endpoint))
        paths.update(open_inference_paths.describe_v2_model_paths(endpoint))
        schemas.update(prediction_paths.describe_model_components(endpoint))
        if not endpoint.current.is_stream:
            schemas.update(describe_v2_components(endpoint))
    paths.update(operator_paths.describe_operator_paths())
    paths.update(invocation_paths.describe_ping_path())
    paths.update(invocation_paths.describe_v1_models_path())
    paths.update(open_inference_paths.describe_v2_server_paths())
    first = application.endpoints[0]
    title = ", ".join(endpoint.name for endpoint in application.endpoints)
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": first.current.version or "unsaved"},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if application.settings.api_keys:
        document["components"]["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
        document["security"] = [{"key": []}, {"bearer": []}]
    own = application.make_user_openapi()
    if own:
        document["paths"] = {**own.get("paths", {}), **paths}
        for kind, components in own.get("components", {}).items():
            document["components"][kind] = {**components, **document["components"].get(kind, {})}
    if root:
        document["servers"] = [{"url": root}]
    document["info"]["x-mlapp"] = distribution.version()
    return document
