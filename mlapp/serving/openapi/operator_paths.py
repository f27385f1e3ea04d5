"""Paths for operators: probes, metrics, list of models."""

from __future__ import annotations

from mlapp.serving.openapi.data_schemas import Json
from mlapp.serving.openapi.responses import describe_json_response, describe_problem_responses

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


def describe_operator_paths() -> Json:
    """The paths that exist once for any number of models."""
    alive = {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]}
    metrics = {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        "/livez": _describe_operator_operation(
            "livez",
            "Liveness of the process",
            {"200": describe_json_response(alive, "The process answers.")},
            is_open=True,
        ),
        "/readyz": _describe_operator_operation("readyz", "Readiness of all models", _READINESS, is_open=True),
        "/health": _describe_operator_operation(
            "health", "Readiness, for clients of UnionML", _READINESS, is_open=True
        ),
        "/metrics": _describe_operator_operation(
            "metrics", "Metrics for Prometheus", {"200": metrics, **describe_problem_responses("401")}
        ),
        "/models": _describe_operator_operation(
            "models",
            "The models of this server",
            {"200": describe_json_response(MODELS), **describe_problem_responses("401")},
        ),
    }


_READINESS = {
    "200": describe_json_response(STATUS, "All models can predict."),
    "503": describe_json_response(STATUS, "A model is not loaded yet, or the server is stopping."),
}


def _describe_operator_operation(identity: str, summary: str, responses: Json, *, is_open: bool = False) -> Json:
    operation = {"summary": summary, "operationId": identity, "tags": ["operation"], "responses": responses}
    return {"get": {**operation, "security": []} if is_open else operation}
