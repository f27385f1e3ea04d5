"""Problems, and other parts that operations of several protocols share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlapp.serving.openapi.data_schemas import LARGEST, Json
from mlapp.serving.web.problems import MEDIA, TITLES

if TYPE_CHECKING:
    from mlapp.serving.inference.endpoint import Endpoint

REFUSALS = ("400", "408", "413", "415", "422", "500", "503", "504")
"""Error responses of a prediction."""


def describe_problem_responses(*statuses: str) -> Json:
    """Responses that are a problem."""
    return describe_failure_responses({"$ref": "#/components/schemas/Problem"}, MEDIA.decode(), *statuses)


def describe_failure_responses(schema: Json, media: str, *statuses: str) -> Json:
    """Error responses in a protocol's own form."""
    content = {media: {"schema": schema}}
    responses: Json = {status: {"description": TITLES[int(status)], "content": content} for status in statuses}
    if "503" in responses:
        responses["503"]["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return responses


def describe_json_response(schema: Json, description: str = "OK", **more: Any) -> Json:
    """A response that is JSON."""
    return {"description": description, "content": {"application/json": {"schema": schema}}, **more}


def describe_deadline_parameter(endpoint: Endpoint) -> Json:
    """The parameter that limits the duration of a request."""
    return {
        "name": "X-Request-Timeout",
        "in": "header",
        "description": f"Seconds until the answer is 504; at most {endpoint.settings.timeout:g}.",
        "schema": {"type": "number", "minimum": 0.001, "maximum": LARGEST},
    }


def describe_request_body(content: Json) -> Json:
    """A request's body, by its media type."""
    return {
        "required": True,
        "description": "The body may be compressed: `Content-Encoding: gzip` or `deflate`.",
        "content": content,
    }


PROBLEM: Json = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": ["string", "null"]},
                    "row": {"type": ["integer", "null"]},
                    "detail": {"type": "string"},
                },
                "required": ["detail"],
            },
        },
    },
    "required": ["type", "title", "status", "detail"],
}
