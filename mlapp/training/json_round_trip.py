"""Checks, before training, that a sample of the features stays the same through JSON and the server's decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from mlapp.errors import DataError, InputError
from mlapp.frameworks import Framework
from mlapp.pipeline import Pipeline
from mlapp.pipeline.feature_format import convert_features_to_array
from mlapp.prediction import UNKNOWN, Predictor
from mlapp.schema import ModelSchema, Schema
from mlapp.schema.feature_containers import (
    count_feature_rows,
    is_torch_dataset,
    take_feature_rows,
    unwrap_dataset_row,
)
from mlapp.schema.json_changes import changed_column_error, require_unchanged_json_columns
from mlapp.schema.json_values import is_same_json_value, to_json_value
from mlapp.schema.row_codec import RowCodec
from mlapp.training.answer_comparison import is_close_answer

CELLS = 50_000
"""Maximum number of values that are sent through JSON."""


@dataclass(frozen=True)
class Sample:
    """Some rows of the features, as the parser returned them and as a server decodes them."""

    features: Any
    decoded: Any

    def take_rows(self, rows: Sequence[int]) -> Sample:
        return Sample(*(take_feature_rows(each, list(rows)) for each in (self.features, self.decoded)))


def send_through_json(pipeline: Pipeline, framework: Framework, schema: Schema, features: Any) -> Sample:
    """Send features through JSON and the server's decoder.

    If the app has a feature_loader, its raw inputs are unknown, and the features stay unchanged.

    Raises:
        DataError: a value or type changes; names the column.
    """
    if pipeline.stage("feature_loader") is not None:
        return Sample(features, features)
    if hasattr(features, "toarray"):
        raise DataError(
            "The features are a sparse matrix, which a request cannot contain.",
            "Move its step into the model, make_pipeline(TfidfVectorizer(), …), or return its .toarray().",
        )
    if is_torch_dataset(features) and not schema.container:
        raise DataError(
            f"The rows of the features, {type(features).__name__}, are not tensors, so a request cannot contain them.",
            "Return the features of a row as one tensor from the dataset, or write an @app.feature_loader.",
        )
    if isinstance(features, dict) and not schema.container:
        raise DataError(
            "The features are a dict of values that are not arrays.",
            "Convert them to arrays, {name: np.asarray(values)}, or write an @app.feature_loader.",
        )
    sendable = _select_sendable_rows(features, schema)
    if not count_feature_rows(sendable):
        return Sample(features, features)
    features = sendable
    predictor = Predictor(pipeline, None, framework, ModelSchema(features=schema, predictions=UNKNOWN))
    if schema.kind == "table":
        decoded = _decode_inputs(predictor, features, _list_records(features))
        if hasattr(decoded, "columns"):
            require_unchanged_json_columns(features, decoded)
        else:
            _require_unchanged_rows(convert_features_to_array(features), decoded)
    else:
        decoded = _decode_inputs(predictor, features, _list_rows(features))
        for name in features if isinstance(features, dict) else [None]:
            _require_unchanged_rows(*((each if name is None else each[name]) for each in (features, decoded)))
    return Sample(features, decoded)


def _decode_inputs(predictor: Predictor, features: Any, inputs: list[Any]) -> Any:
    codec = RowCodec(predictor.schema.features, takes_array=predictor.takes_array)
    try:
        body = msgspec.json.encode(to_json_value(inputs))
        part = codec.decode(body)
        if part is not None and codec.join is not None:
            return codec.join([part])
        return predictor.accept_inputs(msgspec.json.decode(body))
    except InputError as error:
        problem = error.problems[0]
        if problem.field is None or not hasattr(features, "columns"):
            raise DataError(
                f"The features cannot be sent as JSON: {problem.detail}.", "Write an @app.feature_loader."
            ) from error
        column = features.iloc[:, predictor.schema.features.names.index(problem.field)]
        raise changed_column_error(problem.field, column, problem.detail) from error


def _list_rows(features: Any) -> list[Any]:
    """The rows as JSON values, as a client sends them."""
    if isinstance(features, dict):
        return [dict(zip(features, row, strict=True)) for row in zip(*features.values(), strict=True)]
    if hasattr(features, "tolist"):
        return list(features.tolist())
    return [
        unwrap_dataset_row(features[row]) if is_torch_dataset(features) else features[row]
        for row in range(len(features))
    ]


def _list_records(features: Any) -> list[dict[str, Any]]:
    names = [str(name) for name in features.columns]
    columns = [column.tolist() for _, column in features.items()]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _select_sendable_rows(features: Any, schema: Schema) -> Any:
    """The rows without infinite values, which JSON lacks, up to a number that JSON handles quickly."""
    import numpy as np

    width = max(1, len(schema.fields) if schema.kind == "table" else int(np.prod(schema.shape or [1])))
    max_rows = max(2, CELLS // width)
    if isinstance(features, dict) or is_torch_dataset(features):
        return features
    features = features[:max_rows]
    if schema.kind != "table":
        return features
    floats = features.select_dtypes("floating")
    finite = ~np.isinf(floats.to_numpy(dtype=float, na_value=0.0)).any(axis=1) if floats.shape[1] else slice(None)
    return features[finite]


def _require_unchanged_rows(features: Any, decoded: Any) -> None:
    """Check that rows of an array, or JSON values, are unchanged.

    Raises:
        DataError: a row or its type has changed.
    """
    before, after = convert_features_to_array(features), convert_features_to_array(decoded)
    if hasattr(before, "dtype") and before.dtype != object and getattr(after, "dtype", None) != before.dtype:
        raise DataError(
            f"The features, {type(features).__name__} of {before.dtype}, cannot be sent as JSON.",
            "Return a table or an array of numbers, or write an @app.feature_loader.",
        )
    if is_torch_dataset(features):
        before, after = map(_list_rows, (features, decoded))
    for row, (left, right) in enumerate(zip(before, after, strict=True)):
        is_alike = type(left) is type(right) and is_close_answer(left, right)
        if not is_same_json_value(left, right) and not is_alike:
            raise DataError(
                f"Row {row} of the features, a {type(left).__name__}, cannot be sent as JSON.",
                "Write an @app.feature_loader that creates the features from the data that a client sends.",
            )
