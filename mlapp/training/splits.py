"""Splits of a table in memory: the trainer gets the first split, the evaluator all of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from mlapp.baseline import (
    Baseline,
    build_baseline_columns,
    describe_unwatched_features,
    draw_baseline_rows,
    find_target_json_type,
    list_baseline_classes,
)
from mlapp.data.fingerprint import fingerprint_table
from mlapp.pipeline import Pipeline
from mlapp.schema import Schema, infer_schema
from mlapp.schema.arrays import find_array_columns
from mlapp.schema.feature_containers import count_feature_rows
from mlapp.schema.merge import merge_schemas
from mlapp.training import stage_calls
from mlapp.training.sampling import sample_feature_rows

log = logging.getLogger("mlapp.training")
PREDICTED_ROWS = 2_000
"""Rows of the first split whose predictions are part of the baseline."""


class Splits:
    """Features and target of each split. Each split is dropped after its features are extracted, so that a large table
    is not in memory twice.

    Args:
        splits: splits by name; the dict is emptied.
        identity: fingerprint, rows and columns of the whole table.
        bound: stage → name → value of its parameters.

    Attributes:
        schema: the schema of the first split's features, before the transformer.
        sample: some rows of the first split's features; see `sample_feature_rows`.
        baseline_sample: random rows of the first split's features.
        baseline: the baseline of the first split's features and target.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        splits: dict[str, Any],
        identity: tuple[str, int, int],
        bound: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._pipeline, self._pending, self._parameters = pipeline, splits, bound.get("data_parser", {})
        self.identity = identity
        self._name = next(iter(splits))
        part = splits.pop(self._name)
        columns = list_split_columns(part)
        features, target = stage_calls.call_parser(pipeline, part, self._parameters)
        self.schema = name_split_array_schema(infer_schema(features, columns), features, part)
        del part
        self.sample = sample_feature_rows(features)
        self.baseline_sample = copy_split_rows(draw_baseline_rows(features, PREDICTED_ROWS))
        transformed = stage_calls.call_transformer(pipeline, features)
        self.baseline = describe_split(pipeline, features, transformed, target)
        self._first = [(transformed, target)]

    @property
    def first(self) -> tuple[Any, Any]:
        """Transformed features and target of the first split; released after the evaluation."""
        return self._first[0]

    training = first
    """The trainer's input."""

    def iterate_splits(self) -> Iterator[tuple[str, Any, Any]]:
        """Name, transformed features and target of each split, once."""
        yield self._name, *self._first.pop()
        for name in list(self._pending):
            features, target = stage_calls.call_parser(self._pipeline, self._pending.pop(name), self._parameters)
            self.schema = widen_schema_by_split(self.schema, features)
            features = stage_calls.call_transformer(self._pipeline, features)
            yield name, features, target
            del features, target


def name_split_array_schema(schema: Schema, features: Any, table: Any) -> Schema:
    """The schema of an array, with the names of the table's columns."""
    if schema.kind != "array":
        return schema
    columns = find_array_columns(features, table)
    unused = [name for name in list_split_columns(table) if isinstance(name, str) and name not in columns]
    return msgspec.structs.replace(schema, columns=columns, unused=unused) if columns else schema


def widen_schema_by_split(schema: Schema, features: Any) -> Schema:
    """The schema, widened by the range of another split's values."""
    other = infer_schema(features)
    has_same_types = [(field.name, field.dtype) for field in schema.fields] == [
        (field.name, field.dtype) for field in other.fields
    ]
    return merge_schemas(schema, other) if has_same_types else schema


def identify_split_table(table: Any) -> tuple[str, int, int]:
    """Fingerprint, rows and columns of the loader's result; zeros if it is not a table."""
    if hasattr(table, "columns") and hasattr(table, "iloc"):
        return fingerprint_table(table), len(table), len(table.columns)
    return "", count_feature_rows(table) or 0, 0


def list_split_columns(table: Any) -> list[Any]:
    """The names of a table's columns. Call it before the parser, which can remove columns."""
    return list(getattr(table, "columns", ()))


def copy_split_rows(features: Any) -> Any:
    """Copy rows, because a view would keep the whole table in memory."""
    return features.copy() if hasattr(features, "copy") else features


def describe_split(pipeline: Pipeline, features: Any, transformed: Any, target: Any) -> Baseline:
    """The baseline of one split's features and target, without the values that `monitor.columns` redacts.

    Args:
        features: before the transformer, as a client sends them.
        transformed: after the transformer, as the model receives them.
    """
    rules = pipeline.monitor_settings.columns
    shape: tuple[int, ...] = getattr(features, "shape", ())
    if len(shape) == 2 and (warning := describe_unwatched_features(shape[1])):
        log.warning(warning)
    has_transformer = pipeline.stage("feature_transformer") is not None
    return Baseline(
        rows=count_feature_rows(features) or 0,
        features=build_baseline_columns(features, rules),
        transformed=build_baseline_columns(transformed, rules) if has_transformer else [],
        target=find_target_json_type(target),
        classes=list_baseline_classes(target, pipeline.target if isinstance(pipeline.target, str) else None, rules),
    )
