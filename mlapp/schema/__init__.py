"""The schema of features and predictions: inferred in training, stored with the version, checked in serving."""

from mlapp.schema.fields import Field, FieldType, ModelSchema, Schema
from mlapp.schema.infer import infer_prediction_schema, infer_schema

__all__ = ["Field", "FieldType", "ModelSchema", "Schema", "infer_prediction_schema", "infer_schema"]
