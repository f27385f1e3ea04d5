"""The Open Inference Protocol v2, with each model's own tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlapp.serving.openapi.data_schemas import Json
from mlapp.serving.openapi.open_inference_schemas import DATATYPES, READY, make_example_tensors
from mlapp.serving.openapi.prediction_paths import has_own_prediction_inputs, refer_to_component
from mlapp.serving.openapi.responses import (
    REFUSALS,
    describe_deadline_parameter,
    describe_failure_responses,
    describe_json_response,
    describe_problem_responses,
    describe_request_body,
)
from mlapp.serving.protocols.open_inference import EXTENSIONS

if TYPE_CHECKING:
    from mlapp.serving.inference.endpoint import Endpoint


def describe_v2_server_paths() -> Json:
    """The protocol's paths of the server."""
    live = {"type": "object", "properties": {"live": {"const": True}}, "required": ["live"]}
    about = {
        "type": "object",
        "properties": {
            "name": {"const": "mlapp"},
            "version": {"type": "string"},
            "extensions": {"type": "array", "items": {"enum": EXTENSIONS}},
        },
        "required": ["name", "version", "extensions"],
    }
    model_state = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "version": {"type": "string"},
            "state": {"enum": ["READY", "UNAVAILABLE"]},
        },
        "required": ["name", "version", "state"],
    }
    models = describe_json_response({"type": "array", "items": model_state}, "The models that are loaded.")
    return {
        "/v2": {
            "get": _describe_v2_server_operation(
                "v2",
                "The server and its extensions",
                {"200": describe_json_response(about), **describe_problem_responses("401")},
            )
        },
        "/v2/health/live": {
            "get": _describe_v2_server_operation(
                "v2-live",
                "Liveness of the process",
                {"200": describe_json_response(live, "The process answers.")},
                is_open=True,
            )
        },
        "/v2/health/ready": {
            "get": _describe_v2_server_operation(
                "v2-ready", "Readiness of all models", _describe_v2_readiness_response(READY), is_open=True
            )
        },
        "/v2/repository/index": {
            "post": _describe_v2_server_operation(
                "v2-index", "The models of this server", {"200": models, **describe_problem_responses("401")}
            )
        },
    }


def describe_v2_model_paths(endpoint: Endpoint) -> Json:
    """The protocol's paths of one model, with and without its version."""
    path = f"/v2/models/{endpoint.name}"
    paths = _describe_v2_paths(endpoint, path, "v2", [])
    version = endpoint.current.version
    if version is None:
        return paths
    description = "Any other version gets 404: one version answers at a time."
    parameter = {
        "name": "version", "in": "path", "required": True, "description": description, "schema": {"enum": [version]},
    }  # fmt: skip
    paths[path]["get"]["responses"]["200"]["links"] = {
        "version": {
            "operationId": f"v2-version-model_{endpoint.name}",
            "parameters": {"version": "$response.body#/versions/0"},
        }
    }
    return {**paths, **_describe_v2_paths(endpoint, path + "/versions/{version}", "v2-version", [parameter])}


def _describe_v2_paths(endpoint: Endpoint, path: str, prefix: str, parameters: list[Json]) -> Json:
    name = endpoint.name
    missing = {**describe_problem_responses("401"), **_describe_v2_error_responses("404")}
    about = {"tags": [name], **({"parameters": parameters} if parameters else {})}
    ready = {**READY, "properties": {"name": {"const": name}, **READY["properties"]}}
    paths: Json = {
        path: {
            "get": {
                "summary": f"Metadata of {name}: its input and output tensors",
                "operationId": f"{prefix}-model_{name}",
                **about,
                "responses": {"200": describe_json_response(_describe_v2_metadata_response(name)), **missing},
            }
        },
        f"{path}/ready": {
            "get": {
                "summary": f"Readiness of {name}",
                "operationId": f"{prefix}-ready_{name}",
                **about,
                "responses": {**_describe_v2_readiness_response(ready), **missing},
            }
        },
    }
    if not endpoint.current.is_stream:
        paths[f"{path}/infer"] = {
            "post": {
                "summary": f"Predict with {name}, with tensors as inputs and outputs",
                "operationId": f"{prefix}-infer_{name}",
                **about,
                "parameters": [*parameters, describe_deadline_parameter(endpoint)],
                "requestBody": _make_infer_request_schema(endpoint),
                "responses": {
                    "200": _describe_infer_response(name),
                    **missing,
                    **_describe_v2_error_responses(*(status for status in REFUSALS if status != "422")),
                },
            }
        }
    return paths


def _make_infer_request_schema(endpoint: Endpoint) -> Json:
    """The body of an inference."""
    media: Json = {"schema": refer_to_component(endpoint, "InferRequest")}
    example = (
        None
        if has_own_prediction_inputs(endpoint)
        else make_example_tensors(endpoint.current.predictor.schema.features)
    )
    if example is not None:
        media["example"] = {"inputs": example}
    binary = (
        "The JSON, `Inference-Header-Content-Length` bytes of it, then the tensors that have a `binary_data_size` "
        "in their `parameters` in place of `data`."
    )
    octets = {"schema": {"type": "string", "format": "binary", "description": binary}}
    return describe_request_body({"application/json": media, "application/octet-stream": octets})


def _describe_infer_response(name: str) -> Json:
    tensor = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"enum": DATATYPES},
            "data": {"type": "array"},
        },
        "required": ["name", "shape", "datatype", "data"],
    }
    answer = {
        "type": "object",
        "properties": {
            "model_name": {"const": name},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": tensor},
        },
        "required": ["model_name", "model_version", "outputs"],
    }
    binary = "The JSON, then the tensors requested with `binary_data`."
    length: Any = {"description": "Number of bytes of the JSON, if tensors follow it.", "schema": {"type": "integer"}}
    response = describe_json_response(
        answer, "One prediction for each row, in order.", headers={"Inference-Header-Content-Length": length}
    )
    response["content"]["application/octet-stream"] = {
        "schema": {"type": "string", "format": "binary", "description": binary}
    }
    return response


def _describe_v2_metadata_response(name: str) -> Json:
    tensor = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "datatype": {"enum": DATATYPES},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
        },
        "required": ["name", "datatype", "shape"],
    }
    tensor_list = {"type": "array", "items": tensor}
    return {
        "type": "object",
        "properties": {
            "name": {"const": name},
            "versions": {"type": "array", "items": {"type": "string"}},
            "platform": {"type": "string"},
            "inputs": tensor_list,
            "outputs": tensor_list,
        },
        "required": ["name", "versions", "platform", "inputs", "outputs"],
    }


def _describe_v2_readiness_response(schema: Json) -> Json:
    return {
        "200": describe_json_response(schema, "All models can predict."),
        "503": describe_json_response(schema, "A model is not loaded yet, or the server is stopping."),
    }


def _describe_v2_error_responses(*statuses: str) -> Json:
    return describe_failure_responses({"$ref": "#/components/schemas/InferenceError"}, "application/json", *statuses)


def _describe_v2_server_operation(identity: str, summary: str, responses: Json, *, is_open: bool = False) -> Json:
    operation = {"summary": summary, "operationId": identity, "tags": ["operation"], "responses": responses}
    return {**operation, "security": []} if is_open else operation
