"""The server in OpenAPI 3.1, from the models' own schemas, each with an example that works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlapp import environment
from mlapp.schema import Field, Schema

if TYPE_CHECKING:
    from mlapp.serving.application import Application
    from mlapp.serving.endpoint import Endpoint

Json = dict[str, Any]
BITS = {name: int(name.lstrip("uint")) for name in ("int8", "int16", "int32", "int64")}
LARGEST = 1.7976931348623157e308


def document(application: Application, root: str = "") -> Json:
    """The OpenAPI document, with the paths of the user's own FastAPI in it.

    Args:
        root: the path below which the application is mounted.
    """
    paths: Json = {}
    for endpoint in application.endpoints:
        paths.update(_paths(endpoint))
    paths.update(_server_paths())
    first = application.endpoints[0]
    title = ", ".join(endpoint.name for endpoint in application.endpoints)
    found: Json = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": first.current.version or "unsaved"},
        "paths": paths,
        "components": {"schemas": {"Problem": PROBLEM}},
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
    found["info"]["x-mlapp"] = environment.libraries(["mlapp"]).get("mlapp", "")
    return found


def inputs_schema(schema: Schema) -> Json:
    """JSON Schema of a request's `inputs`."""
    if schema.kind == "table":
        record = {
            "type": "object",
            "properties": {field.name: field_schema(field) for field in schema.fields},
            "required": schema.names,
            "additionalProperties": False,
        }
        row = {
            "type": "array",
            "prefixItems": [field_schema(field) for field in schema.fields],
            "minItems": len(schema.fields),
            "maxItems": len(schema.fields),
        }
        return {
            "anyOf": [
                {"title": "Records", "type": "array", "items": record, "minItems": 1},
                {"title": "Rows, in this order", "type": "array", "items": row, "minItems": 1},
            ]
        }
    if schema.kind == "array":
        return {"title": "Rows", "type": "array", "items": _array_schema(schema), "minItems": 1}
    return {"title": "Values", "type": "array", "minItems": 1}


def field_schema(field: Field) -> Json:
    """JSON Schema of one column's values."""
    found: Json
    match field.type:
        case "integer":
            found = {"type": "integer", **_integers(field.dtype)}
        case "number":
            found = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
        case "boolean":
            found = {"type": "boolean"}
        case "string":
            found = {"type": "string"}
        case "datetime":
            found = {"type": "string", "format": "date-time"}
        case "category":
            found = {"enum": list(field.categories or [])}
        case _:
            return {}
    if field.nullable:
        found = {"anyOf": [found, {"type": "null"}]}
    if field.minimum is not None and field.maximum is not None:
        found["description"] = f"In training from {field.minimum} to {field.maximum}."
    if field.example is not None:
        found["examples"] = [field.example]
    return found


def output_schema(schema: Schema) -> Json:
    """JSON Schema of one prediction, as far as it is known."""
    if schema.kind == "table":
        return {"type": "object", "properties": {field.name: {} for field in schema.fields}}
    if schema.kind == "array":
        return _array_schema(schema, nullable=True)
    return {}


def _array_schema(schema: Schema, nullable: bool = False) -> Json:
    dtype = schema.dtype or ""
    cell: Json = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
    if dtype == "bool":
        cell = {"type": "boolean"}
    elif "int" in dtype:
        cell = {"type": "integer", **_integers(dtype)}
    if nullable:
        cell = {"anyOf": [cell, {"type": "null"}]}
    for size in reversed(schema.shape):
        cell = {"type": "array", "items": cell, "minItems": size, "maxItems": size}
    return cell


def _integers(dtype: str) -> Json:
    bits = BITS.get(dtype.removeprefix("u").lower(), 64)
    if dtype.startswith("u"):
        return {"minimum": 0, "maximum": 2**bits - 1}
    return {"minimum": -(2 ** (bits - 1)), "maximum": 2 ** (bits - 1) - 1}


def _paths(endpoint: Endpoint) -> Json:
    loaded = endpoint.current
    schema = loaded.predictor.schema
    own = endpoint.pipeline.stage("feature_loader") is not None
    inputs = {"description": "What the app's feature_loader reads."} if own else inputs_schema(schema.features)
    example = {"inputs": schema.features.example_inputs()}
    answer = {
        "type": "object",
        "properties": {
            "predictions": {"type": "array", "items": output_schema(schema.predictions)},
            "model": {"const": endpoint.name},
            "version": {"type": ["string", "null"]},
        },
        "required": ["predictions", "model", "version"],
    }
    body = {
        "type": "object",
        "properties": {"inputs": inputs},
        "required": ["inputs"],
        "additionalProperties": False,
    }
    media: Json = {"schema": body} if own else {"schema": body, "example": example}
    tags = [endpoint.name]
    predicted: Json = {
        "description": "One prediction a row, in order.",
        "content": {"application/json": {"schema": answer}},
    }
    if loaded.is_stream:
        predicted["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        f"{endpoint.prefix}/predict": {
            "post": {
                "summary": f"Predict with {endpoint.name}",
                "operationId": f"predict_{endpoint.name}",
                "tags": tags,
                "parameters": [
                    {
                        "name": "X-Request-Timeout",
                        "in": "header",
                        "description": f"Seconds until the answer is 504; at most {endpoint.settings.timeout:g}.",
                        "schema": {"type": "number", "minimum": 0.001, "maximum": LARGEST},
                    }
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": media, **_other_bodies(schema.features)},
                },
                "responses": {
                    "200": predicted,
                    **_problems("400", "401", "408", "413", "415", "422", "500", "503", "504"),
                },
            }
        },
        f"{endpoint.prefix}/model": {
            "get": {
                "summary": f"What {endpoint.name} is: version, metrics, parameters, schema",
                "operationId": f"describe_{endpoint.name}",
                "tags": tags,
                "responses": {
                    "200": {
                        "description": "OK",
                        "content": {"application/json": {"schema": DESCRIPTION}},
                        "links": {
                            "example": {
                                "operationId": f"predict_{endpoint.name}",
                                "requestBody": "$response.body#/example",
                                "description": "The example is a body that can be sent.",
                            }
                        },
                    },
                    **_problems("401"),
                },
            }
        },
    }


def _other_bodies(schema: Schema) -> Json:
    """What a body may be beside JSON: it has the same rows."""
    columns = ", ".join(schema.names) or "those of training"
    return {
        "text/csv": {"schema": {"type": "string", "description": f"A line a row, its columns {columns}."}},
        "application/vnd.apache.arrow.stream": {"schema": _binary("An Arrow IPC stream; it may be compressed.")},
        "application/vnd.apache.arrow.file": {"schema": _binary("An Arrow IPC file, as Feather is.")},
        "application/x-npy": {"schema": _binary("One array in NumPy's format, a row for each prediction.")},
    }


def _binary(description: str) -> Json:
    return {"type": "string", "format": "binary", "description": description}


def _server_paths() -> Json:
    state = {"application/json": {"schema": {"type": "object"}}}
    return {
        "/livez": {
            "get": {
                "summary": "Whether the process answers",
                "operationId": "livez",
                "security": [],
                "tags": ["operation"],
                "responses": {"200": {"description": "It does.", "content": state}},
            }
        },
        "/readyz": {
            "get": {
                "summary": "Whether the models can predict",
                "operationId": "readyz",
                "security": [],
                "tags": ["operation"],
                "responses": {
                    "200": {"description": "They can.", "content": state},
                    "503": {"description": "Not yet, or no more: the server stops.", "content": state},
                },
            }
        },
        "/metrics": {
            "get": {
                "summary": "Metrics for Prometheus",
                "operationId": "metrics",
                "tags": ["operation"],
                "responses": {
                    "200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}},
                    **_problems("401"),
                },
            }
        },
    }


def _problems(*statuses: str) -> Json:
    from mlapp.serving.problems import TITLES

    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: Json = {status: {"description": TITLES[int(status)], "content": content} for status in statuses}
    if "503" in found:
        found["503"]["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return found


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
