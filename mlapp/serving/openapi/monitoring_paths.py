"""`/feedback` and `/monitor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlapp.serving.openapi.data_schemas import Json
from mlapp.serving.openapi.responses import describe_json_response, describe_problem_responses, describe_request_body

if TYPE_CHECKING:
    from mlapp.serving.inference.endpoint import Endpoint

VALUE = ["string", "number", "boolean"]
TRUTH: Json = {
    "type": "object",
    "properties": {
        "id": {
            "type": ["string", "integer"],
            "description": "The answer's X-Request-ID; of a request of several rows, `REQUEST#ROW`, counted from 0.",
        },
        "keys": {
            "type": "object",
            "description": "Keys that the request contained next to `inputs`, or some of them.",
            "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
            "minProperties": 1,
        },
        "truth": {
            "type": [*VALUE, "array"],
            "items": {"type": VALUE},
            "description": "The true value; a list for all rows of a request by its id.",
        },
    },
    "required": ["truth"],
    "oneOf": [{"required": ["id"]}, {"required": ["keys"]}],
    "additionalProperties": False,
}
ACCEPTED: Json = {
    "type": "object",
    "properties": {
        "accepted": {"type": "integer", "description": "Number of truths that were stored."},
        "unknown_classes": {
            "type": "object",
            "description": "Classes that training never saw, with the number of their truths; absent without any.",
            "additionalProperties": {"type": "integer"},
        },
    },
    "required": ["accepted"],
}


def describe_monitoring_paths(endpoint: Endpoint) -> Json:
    """The paths of one model's monitoring."""
    truth = {"$ref": "#/components/schemas/Truth"}
    body = {
        "schema": {"anyOf": [truth, {"type": "array", "items": truth, "minItems": 1}]},
        "example": [{"id": "4f1c2a9be07d3356-00000000002a#0", "truth": 1}, {"keys": {"order": "A-17"}, "truth": 0}],
    }
    paths: Json = {
        f"{endpoint.prefix}/feedback": {
            "post": {
                "summary": f"Send the true values of predictions of {endpoint.name}",
                "description": "A true value can arrive late and be corrected: the last one counts. The server answers "
                "after it has stored them.",
                "operationId": f"feedback_{endpoint.name}",
                "tags": [endpoint.name],
                "requestBody": describe_request_body({"application/json": body}),
                "responses": {
                    "200": describe_json_response(ACCEPTED, "The true values are stored."),
                    **describe_problem_responses("400", "401", "408", "413", "422", "503", "504"),
                },
            }
        }
    }
    if endpoint.recorder is not None:
        page = {"description": "A page.", "content": {"text/html": {"schema": {"type": "string"}}}}
        paths[f"{endpoint.prefix}/monitor"] = {
            "get": {
                "summary": f"The live report of {endpoint.name}",
                "description": "Drift, volume, refused inputs and predictions of the last windows, as a page.",
                "operationId": f"monitor_{endpoint.name}",
                "tags": [endpoint.name],
                "responses": {"200": page, **describe_problem_responses("401")},
            }
        }
    return paths
