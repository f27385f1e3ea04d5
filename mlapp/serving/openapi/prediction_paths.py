"""`/predict` and `/model`."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import msgspec

from mlapp.schema import Schema
from mlapp.serving.decoding.json_body import KEYS
from mlapp.serving.openapi.data_schemas import Json, make_inputs_schema, make_output_schema, make_rows_schemas
from mlapp.serving.openapi.responses import (
    REFUSALS,
    describe_deadline_parameter,
    describe_json_response,
    describe_problem_responses,
    describe_request_body,
)

if TYPE_CHECKING:
    from mlapp.serving.inference.endpoint import Endpoint


def describe_prediction_paths(endpoint: Endpoint) -> Json:
    """The paths of one model."""
    return {
        f"{endpoint.prefix}/predict": {"post": _describe_predict_operation(endpoint)},
        f"{endpoint.prefix}/model": _describe_model_operation(endpoint),
    }


def has_own_prediction_inputs(endpoint: Endpoint) -> bool:
    """Whether only the app's feature_loader defines the inputs."""
    return endpoint.has_loader


def describe_model_components(endpoint: Endpoint) -> Json:
    """The schemas of one model's data, which several of its paths share."""
    if has_own_prediction_inputs(endpoint):
        description = "What the app's feature_loader reads."
        inputs = endpoint.current.predictor.schema.inputs
        own: Json = {"description": description, **((inputs.schema or {}) if inputs is not None else {})}
        if inputs is not None:
            own["examples"] = [inputs.example]
        schemas: list[Json] = [own, {"description": description, "type": "array"}, own]
    else:
        features = endpoint.current.predictor.schema.features
        ignores = endpoint.settings.extra == "ignore"
        rows = make_rows_schemas(features, ignores_extra=ignores)
        whole = make_inputs_schema(
            _make_prediction_rows_schema(endpoint, features),
            ignores_extra=ignores or endpoint.pipeline.features is not None,
        )
        schemas = [make_inputs_schema(features, ignores_extra=ignores), {"anyOf": rows}, whole]
    return {
        f"{endpoint.name}.{name}": schema for name, schema in zip(("Inputs", "Rows", "Features"), schemas, strict=True)
    }


def _make_prediction_rows_schema(endpoint: Endpoint, features: Schema) -> Schema:
    """The schema of rows as the reader returns them, with the targets."""
    others = [name for name in endpoint.pipeline.targets if name not in (*features.names, *features.unused)]
    return msgspec.structs.replace(features, unused=[*features.unused, *others])


def refer_to_component(endpoint: Endpoint, name: str) -> Json:
    """A reference to one of the model's components: `Inputs`, or `Rows` for a bare list."""
    return {"$ref": f"#/components/schemas/{endpoint.name}.{name}"}


def describe_other_bodies(endpoint: Endpoint) -> Json:
    """The formats of a body other than JSON."""
    schema = endpoint.current.predictor.schema.features
    columns = ", ".join(schema.names) or "those of training"
    text: Json = {"schema": {"type": "string", "description": f"One line for each row, with the columns {columns}."}}
    if schema.kind == "table" and not has_own_prediction_inputs(endpoint):
        text["example"] = _make_prediction_csv_example(schema)
    return {
        "text/csv": text,
        "application/vnd.apache.arrow.stream": _make_prediction_binary_schema(
            "An Arrow IPC stream; it may be compressed."
        ),
        "application/vnd.apache.arrow.file": _make_prediction_binary_schema("An Arrow IPC file, as Feather is."),
        "application/x-npy": _make_prediction_binary_schema("One array in NumPy's format, a row for each prediction."),
    }


def _describe_predict_operation(endpoint: Endpoint) -> Json:
    model = endpoint.current
    schema = model.predictor.schema
    answer = {
        "type": "object",
        "properties": {
            "predictions": {"type": "array", "items": make_output_schema(schema.predictions)},
            "model": {"const": endpoint.name},
            "version": {"type": ["string", "null"]},
        },
        "required": ["predictions", "model", "version"],
    }
    media: Json = {"schema": _describe_predict_body(endpoint)}
    example = schema.example_inputs(has_feature_loader=has_own_prediction_inputs(endpoint))
    if example is not None:
        media["example"] = {"inputs": example}
    bare = {
        "type": "array",
        "items": make_output_schema(schema.predictions),
        "description": "For a body with `features`.",
    }
    response = describe_json_response({"anyOf": [answer, bare]}, "One prediction for each row, in order.")
    if model.is_stream:
        response["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "summary": f"Predict with {endpoint.name}",
        "operationId": f"predict_{endpoint.name}",
        "tags": [endpoint.name],
        "parameters": [describe_deadline_parameter(endpoint)],
        "requestBody": describe_request_body({"application/json": media, **describe_other_bodies(endpoint)}),
        "responses": {"200": response, **describe_problem_responses("401", *REFUSALS)},
    }


def _describe_predict_body(endpoint: Endpoint) -> Json:
    objects: list[Json] = [
        {
            "type": "object",
            "properties": {key: refer_to_component(endpoint, key.capitalize())},
            "required": [key],
            "additionalProperties": False,
        }
        for key in KEYS
    ]
    objects[-1]["description"] = (
        "The body of UnionML's clients: whole rows, with or without the target. The answer is a bare list."
    )
    return {"anyOf": [*objects, refer_to_component(endpoint, "Rows")]}


def _describe_model_operation(endpoint: Endpoint) -> Json:
    example = {
        "operationId": f"predict_{endpoint.name}",
        "requestBody": "$response.body#/example",
        "description": "The example is a valid body.",
    }
    return {
        "get": {
            "summary": f"Version, metrics, parameters and schema of {endpoint.name}",
            "operationId": f"describe_{endpoint.name}",
            "tags": [endpoint.name],
            "responses": {
                "200": describe_json_response(DESCRIPTION, links={"example": example}),
                **describe_problem_responses("401"),
            },
        }
    }


def _make_prediction_csv_example(schema: Schema) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(schema.names)
    writer.writerow([field.example for field in schema.fields])
    return text.getvalue()


def _make_prediction_binary_schema(description: str) -> Json:
    return {"schema": {"type": "string", "format": "binary", "description": description}}


DESCRIPTION: Json = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "version": {"type": ["string", "null"]},
        "schema": {"type": "object"},
        "example": {"type": "object", "properties": {"inputs": {}}, "required": ["inputs"]},
    },
    "required": ["model", "version", "schema", "example"],
}
