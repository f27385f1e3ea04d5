"""Paths for operators: probes, metrics, list of models."""

from __future__ import annotations

from mlapp.serving.openapi.data_schemas import Json
from mlapp.serving.openapi.responses import json_response, problem_responses

STATUS: Json = {
    "type": "object",
    "properties": {
        "status": {"enum": ["ok", "starting", "stopping"]},
        "models": {
            "type": "object",
            "description": "The version of each model.",
            "additionalProperties": {"type": ["string", "null"]},
        },
    },
    "required": ["status", "models"],
}
MODELS: Json = {
    "type": "object",
    "properties": {
        "models": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"model": {"type": "string"}, "version": {"type": ["string", "null"]}},
                "required": ["model", "version"],
            },
        }
    },
    "required": ["models"],
}


def operator_paths() -> Json:
    """The paths that exist once for any number of models."""
    alive = {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]}
    metrics = {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        "/livez": _get_operation(
            "livez", "Whether the process answers", {"200": json_response(alive, "It does.")}, is_open=True
        ),
        "/readyz": _get_operation("readyz", "Whether the models can predict", _READINESS, is_open=True),
        "/health": _get_operation("health", "As /readyz, for clients of UnionML", _READINESS, is_open=True),
        "/metrics": _get_operation("metrics", "Metrics for Prometheus", {"200": metrics, **problem_responses("401")}),
        "/models": _get_operation(
            "models", "The models of this server", {"200": json_response(MODELS), **problem_responses("401")}
        ),
    }


_READINESS = {
    "200": json_response(STATUS, "They can."),
    "503": json_response(STATUS, "Not yet, or no more: the server stops."),
}


def _get_operation(identity: str, summary: str, responses: Json, *, is_open: bool = False) -> Json:
    found = {"summary": summary, "operationId": identity, "tags": ["operation"], "responses": responses}
    return {"get": {**found, "security": []} if is_open else found}
