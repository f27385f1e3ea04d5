"""JSON Schemas of the Open Inference Protocol v2, with the tensors of each model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlapp.schema import Schema
from mlapp.serving.openapi.data_schemas import Json, make_number_schema, make_value_schema
from mlapp.serving.openapi.prediction_paths import has_own_prediction_inputs
from mlapp.serving.protocols import tensors

if TYPE_CHECKING:
    from mlapp.serving.inference.endpoint import Endpoint


DATATYPES = ["BYTES", *tensors.DTYPES]
ERROR: Json = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
"""The protocol's body of an error."""
READY: Json = {"type": "object", "properties": {"ready": {"type": "boolean"}}, "required": ["ready"]}


def describe_v2_components(endpoint: Endpoint) -> Json:
    """The JSON of an inference with the model."""
    parameters = {"type": "object"}
    requested_output = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "parameters": parameters},
        "required": ["name"],
    }
    request: Json = {
        "type": "object",
        "properties": {
            "id": {"type": ["string", "null"], "description": "Returned in the answer."},
            "inputs": _make_input_tensors_schema(endpoint),
            "outputs": {
                "description": "Tensors to return; all when absent.",
                "anyOf": [{"type": "array", "items": requested_output}, {"type": "null"}],
            },
            "parameters": parameters,
        },
        "required": ["inputs"],
    }
    return {f"{endpoint.name}.InferRequest": request}


def make_example_tensors(schema: Schema) -> list[Json] | None:
    """The model's example as tensors; None unless it is a table, an array or a single value."""
    metadata = tensors.describe_tensors(schema, tensors.INPUTS)
    if schema.kind == "table":
        values = [field.example for field in schema.fields]
        return [
            # Only a BYTES tensor can hold missing values.
            {**about, "datatype": "BYTES" if value is None else about["datatype"], "shape": [1], "data": [value]}
            for about, value in zip(metadata, values, strict=True)
        ]
    if schema.kind == "any" and isinstance(schema.example, (list, dict)):
        return None
    return [{**metadata[0], "shape": [1, *schema.shape], "data": [schema.example]}]


def _make_input_tensors_schema(endpoint: Endpoint) -> Json:
    schema = endpoint.current.predictor.schema.features
    if has_own_prediction_inputs(endpoint):
        description = "What the app's feature_loader reads: one tensor, or several as the columns of a table."
        return {"type": "array", "description": description, "items": _make_v2_tensor_schema(), "minItems": 1}
    own = tensors.describe_tensors(schema, tensors.INPUTS)
    if schema.kind != "table":
        sizes = [{"const": size} for size in schema.shape] if schema.kind == "array" else None
        values = make_number_schema(schema.dtype or "") if schema.kind == "array" else {}
        return _make_single_tensor_schema(_make_v2_tensor_schema({"type": "string"}, own[0]["datatype"], values, sizes))
    columns = [
        {
            "title": field.name,
            **_make_v2_tensor_schema({"const": field.name}, about["datatype"], make_value_schema(field)),
        }
        for field, about in zip(schema.fields, own, strict=True)
    ]
    other = {"type": "string", "not": {"enum": schema.names}}
    rows = _make_v2_tensor_schema(other, None, {}, [{"const": len(schema.fields)}])
    count = {"minItems": len(columns), "maxItems": len(columns)}
    each: Json = {"title": "A tensor for each column, in any order", "type": "array", "items": {"anyOf": columns}}
    return {
        "anyOf": [
            {**each, **count},
            {"title": "Rows, their columns in training order", **_make_single_tensor_schema(rows)},
        ]
    }


def _make_single_tensor_schema(tensor: Json) -> Json:
    return {"type": "array", "items": tensor, "minItems": 1, "maxItems": 1}


def _make_v2_tensor_schema(
    name: Json | None = None, datatype: str | None = None, value: Json | None = None, sizes: list[Json] | None = None
) -> Json:
    """JSON Schema of a tensor.

    Args:
        datatype: of the model's tensor.
        value: JSON Schema of one value.
        sizes: of its shape after the number of rows; None for any sizes.
    """
    shape: Json = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}
    if sizes is not None:
        shape |= {"prefixItems": [shape["items"], *sizes], "minItems": 1 + len(sizes), "maxItems": 1 + len(sizes)}
    data: Json = {
        "type": "array",
        "minItems": 1,
        "description": "The values in row-major order, flat or nested. Their number follows from the shape.",
    }
    if value:
        data["items"] = {"anyOf": [value, {"type": "array"}]}
    datatypes: Json = {"enum": DATATYPES}
    if datatype:
        datatypes["description"] = f"{datatype} is the model's own; values of another are taken where they fit."
    properties = {
        "name": name or {"type": "string"},
        "shape": shape,
        "datatype": datatypes,
        "data": data,
        "parameters": {"type": "object"},
    }
    return {"type": "object", "properties": properties, "required": ["name", "shape", "datatype", "data"]}
