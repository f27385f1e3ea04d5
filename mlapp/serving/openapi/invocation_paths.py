"""`/invocations` and `/ping` for clients of MLflow and Amazon SageMaker, and KServe's v1 protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlapp.schema import Schema
from mlapp.serving.openapi.data_schemas import Json, make_array_schema, make_output_schema
from mlapp.serving.openapi.prediction_paths import describe_other_bodies, has_own_prediction_inputs, refer_to_component
from mlapp.serving.openapi.responses import (
    REFUSALS,
    describe_deadline_parameter,
    describe_json_response,
    describe_problem_responses,
    describe_request_body,
)
from mlapp.serving.protocols.invocations import FORMS

if TYPE_CHECKING:
    from mlapp.serving.inference.endpoint import Endpoint

NO_PARAMS: Json = {
    "description": "Not supported: the predictor takes no parameters.",
    "anyOf": [{"type": "object", "maxProperties": 0}, {"type": "null"}],
}


def describe_invocation_paths(endpoint: Endpoint) -> Json:
    """The path of one model; empty for a model that streams, because these clients support no streams."""
    if endpoint.current.is_stream:
        return {}
    predictions = make_output_schema(endpoint.current.predictor.schema.predictions)
    answer = {
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": predictions}},
        "required": ["predictions"],
    }
    media: Json = {"schema": _describe_invocation_body(endpoint)}
    if not has_own_prediction_inputs(endpoint):
        media["examples"] = {
            form: {"value": {form: value}} for form, value in _list_invocation_examples(endpoint).items()
        }
    return {
        f"{endpoint.prefix}/invocations": {
            "post": {
                "summary": f"Predict with {endpoint.name}, for clients of MLflow and SageMaker",
                "operationId": f"invoke_{endpoint.name}",
                "tags": [endpoint.name],
                "parameters": [describe_deadline_parameter(endpoint)],
                "requestBody": describe_request_body({"application/json": media, **describe_other_bodies(endpoint)}),
                "responses": {
                    "200": describe_json_response(answer, "One prediction for each row, in order."),
                    **describe_problem_responses("401", *REFUSALS),
                },
            }
        }
    }


def describe_v1_paths(endpoint: Endpoint) -> Json:
    """The paths of one model in KServe's v1 protocol; empty for a model that streams."""
    if endpoint.current.is_stream:
        return {}
    path = f"/v1/models/{endpoint.name}"
    post: Json = describe_invocation_paths(endpoint)[f"{endpoint.prefix}/invocations"]["post"]
    state: Json = {"type": "object", "properties": {"name": {"const": endpoint.name}, "ready": {"type": "boolean"}}}
    return {
        path: {
            "get": {
                "summary": f"Readiness of {endpoint.name}, for KServe v1",
                "operationId": f"v1_ready_{endpoint.name}",
                "tags": [endpoint.name],
                "responses": {
                    "200": describe_json_response(state, "The model can predict."),
                    **describe_problem_responses("401"),
                    "503": describe_json_response(state, "A model is not loaded yet, or the server is stopping."),
                },
            }
        },
        f"{path}:predict": {
            "post": {
                **post,
                "summary": f"Predict with {endpoint.name}, for clients of KServe v1 and Vertex AI",
                "operationId": f"v1_predict_{endpoint.name}",
            }
        },
    }


def describe_v1_models_path() -> Json:
    """The path of the list of models."""
    models: Json = {"type": "array", "items": {"type": "string"}}
    answer: Json = {"type": "object", "properties": {"models": models}, "required": ["models"]}
    return {
        "/v1/models": {
            "get": {
                "summary": "Names of the models, for KServe v1",
                "operationId": "v1_models",
                "tags": ["operation"],
                "responses": {
                    "200": describe_json_response(answer, "Their names."),
                    **describe_problem_responses("401"),
                },
            }
        }
    }


def describe_ping_path() -> Json:
    """The path of the server's probe."""
    return {
        "/ping": {
            "get": {
                "summary": "Readiness of all models, for SageMaker",
                "operationId": "ping",
                "security": [],
                "tags": ["operation"],
                "responses": {
                    "200": describe_json_response({"type": "object"}, "All models can predict."),
                    "503": describe_json_response(
                        {"type": "object"}, "A model is not loaded yet, or the server is stopping."
                    ),
                },
            }
        }
    }


def _describe_invocation_body(endpoint: Endpoint) -> Json:
    inputs = refer_to_component(endpoint, "Inputs")
    schemas = {form: _make_invocation_split_schema(endpoint) if form == "dataframe_split" else inputs for form in FORMS}
    objects = [
        {
            "title": form,
            "type": "object",
            "properties": {form: schema, "params": NO_PARAMS, **{other: False for other in FORMS if other != form}},
            "required": [form],
        }
        for form, schema in schemas.items()
    ]
    return {"anyOf": [*objects, refer_to_component(endpoint, "Rows")]}


def _make_invocation_split_schema(endpoint: Endpoint) -> Json:
    """A table in the form of pandas' `to_dict("split")`, or the rows of an array."""
    schema, names = _make_invocation_feature_schema(endpoint), _make_invocation_feature_schema(endpoint).names
    columns: Json = {"type": "array"}
    row: Json = {"type": "array"}
    if has_own_prediction_inputs(endpoint) or schema.kind == "any":
        pass
    elif schema.kind == "array":
        columns = {"type": "null"}
        row = make_array_schema(schema)
    else:
        size = {"minItems": len(names), "maxItems": len(names)}
        numbers = [int(name) for name in names if name.isdecimal() and str(int(name)) == name]
        columns = {"type": "array", "items": {"enum": [*names, *numbers]}, "uniqueItems": True, **size}
        row = {"type": "array", "description": "One value for each column.", **size}
    return {
        "type": "object",
        "properties": {
            "columns": {
                "description": "In the order of the data. When absent: the order of training.",
                "anyOf": [columns, {"type": "null"}],
            },
            "data": {"type": "array", "items": row, "minItems": 1},
        },
        "required": ["data"],
    }


def _list_invocation_examples(endpoint: Endpoint) -> dict[str, Any]:
    schema = _make_invocation_feature_schema(endpoint)
    examples: dict[str, Any] = dict.fromkeys(("dataframe_records", "instances", "inputs"), schema.example_inputs())
    if schema.kind == "table":
        data = [[field.example for field in schema.fields]]
        return {"dataframe_split": {"columns": schema.names, "data": data}, **examples}
    return examples


def _make_invocation_feature_schema(endpoint: Endpoint) -> Schema:
    return endpoint.current.predictor.schema.features
