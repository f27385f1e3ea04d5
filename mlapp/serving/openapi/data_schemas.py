"""JSON Schemas of features and predictions, from the model's schema."""

from __future__ import annotations

from typing import Any

from mlapp.schema import Field, Schema
from mlapp.schema.fields import find_integer_field_bounds
from mlapp.schema.text_forms import TEXT_FORMS
from mlapp.schema.zones import is_zoned_dtype

Json = dict[str, Any]
UNUSED: Json = {"description": "A column of the training data that the model does not use. It is ignored."}
LARGEST = 1.7976931348623157e308


def make_inputs_schema(schema: Schema, *, ignores_extra: bool = False) -> Json:
    """The valid inputs of a request: a list of rows, or, for a table, its columns or one record."""
    forms = make_rows_schemas(schema, ignores_extra=ignores_extra)
    if schema.kind == "table":
        columns: Json = {
            "title": "Columns, all of one length",
            "type": "object",
            "properties": {
                **{
                    field.name: {"type": "array", "items": make_value_schema(field), "minItems": 1}
                    for field in schema.fields
                },
                **{name: {**UNUSED, "type": "array"} for name in schema.unused},
            },
            "required": schema.names,
            "additionalProperties": {"type": "array"} if ignores_extra else False,
        }
        forms += [columns, {**_make_record_schema(schema, ignores_extra), "title": "One record"}]
    elif schema.kind == "any":
        forms += [{"title": "One value", "not": {"type": "array"}}]
    return {"anyOf": forms} if len(forms) > 1 else forms[0]


def make_rows_schemas(schema: Schema, *, ignores_extra: bool = False) -> list[Json]:
    """The valid lists of rows."""
    if schema.kind == "table":
        row = {
            "type": "array",
            "prefixItems": [make_field_schema(field) for field in schema.fields],
            "minItems": len(schema.fields),
            "maxItems": len(schema.fields),
        }
        forms: list[Json] = [
            {"title": "Records", "type": "array", "items": _make_record_schema(schema, ignores_extra), "minItems": 1},
            {"title": "Rows, in this order", "type": "array", "items": row, "minItems": 1},
        ]
        if len(schema.fields) == 1:
            values = {"type": "array", "items": make_value_schema(schema.fields[0]), "minItems": 1}
            forms.append({"title": f"Values of {schema.fields[0].name}", **values})
        return forms
    if schema.kind == "array":
        return [{"title": "Rows", "type": "array", "items": make_array_schema(schema), "minItems": 1}]
    return [{"title": "Values", "type": "array", "minItems": 1}]


def make_field_schema(field: Field) -> Json:
    """JSON Schema of one column's values, with training's range and examples."""
    json_schema = make_value_schema(field)
    if field.type == "any":
        return json_schema
    if field.minimum is not None and field.maximum is not None:
        json_schema["description"] = f"In training from {field.minimum} to {field.maximum}."
    if field.example is not None:
        json_schema["examples"] = [field.example]
    return json_schema


def make_value_schema(field: Field) -> Json:
    """JSON Schema of the values that a column accepts."""
    json_schema: Json
    match field.type:
        case "integer":
            json_schema = {"type": "integer", **_make_integer_schema(field.dtype)}
        case "number":
            json_schema = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
        case "boolean":
            json_schema = {"type": "boolean"}
        case "string":
            json_schema = {"type": "string"}
        case "datetime":
            # `date-time-local` is the OpenAPI Format Registry's date-time without a zone.
            has_zone = is_zoned_dtype(field.dtype)
            json_schema = {"type": "string", "format": "date-time" if has_zone else "date-time-local"}
        case "category":
            json_schema = {"enum": list(field.categories or [])}
        case "any":
            return {}
        case _:
            json_schema = dict(TEXT_FORMS[field.type].json_schema)
    return {"anyOf": [json_schema, {"type": "null"}]} if field.nullable else json_schema


def make_output_schema(schema: Schema) -> Json:
    """JSON Schema of one prediction, as detailed as possible."""
    if schema.kind == "table":
        return {"type": "object", "properties": {field.name: {} for field in schema.fields}}
    if schema.kind == "array":
        return make_array_schema(schema, nullable=True)
    return {}


def make_array_schema(schema: Schema, nullable: bool = False) -> Json:
    """JSON Schema of one row of an array. A float can be null, which means NaN.

    Args:
        nullable: any other value can be null too.
    """
    cell = make_number_schema(schema.dtype or "")
    if nullable or cell["type"] == "number":
        cell = {"anyOf": [cell, {"type": "null"}]}
    for size in reversed(schema.shape):
        cell = {"type": "array", "items": cell, "minItems": size, "maxItems": size}
    return cell


def make_number_schema(dtype: str) -> Json:
    """JSON Schema of a value of an array."""
    if dtype == "bool":
        return {"type": "boolean"}
    if "int" in dtype:
        return {"type": "integer", **_make_integer_schema(dtype)}
    return {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}


def _make_record_schema(schema: Schema, ignores_extra: bool) -> Json:
    return {
        "type": "object",
        "properties": {
            **{field.name: make_field_schema(field) for field in schema.fields},
            **{name: dict(UNUSED) for name in schema.unused},
        },
        "required": schema.names,
        "additionalProperties": ignores_extra,
    }


def _make_integer_schema(dtype: str) -> Json:
    low, end = find_integer_field_bounds(dtype)
    return {"minimum": low, "maximum": end - 1}
