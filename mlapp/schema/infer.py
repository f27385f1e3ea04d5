"""Infers a schema from the data of a training run."""

from __future__ import annotations

import datetime
import numbers
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mlapp.errors import DataError
from mlapp.schema.feature_containers import is_torch_dataset, unwrap_dataset_row
from mlapp.schema.fields import Field, FieldType, Schema
from mlapp.schema.json_values import to_json_value
from mlapp.schema.number_fields import choose_number_example, find_number_range, infer_number_fields
from mlapp.schema.text_forms import TEXT_FORMS, find_text_form, find_text_form_of_values

if TYPE_CHECKING:
    import pandas as pd

MAX_CATEGORIES = 50


def infer_schema(features: Any, columns: Iterable[Any] = ()) -> Schema:
    """The schema of training features: a DataFrame, a NumPy array of numbers, or a list of JSON values.

    A row without missing values serves as the example.

    Args:
        columns: of the table before parsing. Those that are not features become unused columns.
    """
    import numpy as np
    import pandas as pd

    if isinstance(features, pd.DataFrame):
        has_integer_names = _check_column_labels(list(features.columns))
        example = _choose_inferred_example(features)
        number_fields = infer_number_fields(features, example) if len(features) else {}
        fields = [
            number_fields.get(at) or _infer_field(str(name), features.iloc[:, at], example)
            for at, name in enumerate(features.columns)
        ]
        unused = _list_unused_columns(columns, features)
        return Schema(kind="table", fields=fields, unused=unused, has_integer_names=has_integer_names)
    if isinstance(features, pd.Series):
        example = to_json_value(next(iter(features), None))
        return Schema(kind="any", container="series", dtype=str(features.dtype), example=example)
    if isinstance(features, dict) and features and all(isinstance(part, np.ndarray) for part in features.values()):
        fields = [
            Field(name=str(name), type="any", dtype=str(part.dtype), example=to_json_value(part[0]))
            for name, part in features.items()
        ]
        example = {field.name: field.example for field in fields}
        return Schema(kind="any", container="dict", fields=fields, example=example)
    if hasattr(features, "toarray"):  # a sparse matrix
        return Schema(kind="any")
    if is_torch_dataset(features):
        first = features[0]
        row = unwrap_dataset_row(first)
        if not hasattr(row, "detach"):
            return Schema(kind="any")
        container: Literal["dataset", "tensor_dataset"] = "dataset" if row is first else "tensor_dataset"
        dtype, shape = str(row.dtype).removeprefix("torch."), list(row.shape)
        return Schema(kind="any", container=container, dtype=dtype, shape=shape, example=to_json_value(row))
    if isinstance(features, np.ndarray) and features.dtype.kind in "biuf" and features.ndim:
        shape = list(features.shape[1:])
        return Schema(
            kind="array",
            shape=shape,
            dtype=str(features.dtype),
            example=to_json_value(features[0]) if len(features) else None,
        )
    first = next(iter(features), None) if hasattr(features, "__iter__") else None
    return Schema(kind="any", example=to_json_value(first))


def refuse_equal_columns(table: Any) -> None:
    """Check the columns of a table before anything selects one by its name.

    Raises:
        DataError: two have one name, or the columns have several levels.
    """
    columns = getattr(table, "columns", None)
    if columns is None:
        return
    if getattr(columns, "nlevels", 1) > 1:
        raise DataError("The columns are a MultiIndex.", "Give each column one string as its name.")
    _refuse_equal_names(list(columns))


def _refuse_equal_names(names: list[Any]) -> None:
    if len(names) > len(set(map(str, names))):
        twice = next(name for name, count in Counter(map(str, names)).items() if count > 1)
        raise DataError(f"Two columns are named '{twice}'.", "Rename one of them, or leave it out: App(features=[…]).")


def _check_column_labels(names: list[Any]) -> bool:
    """Whether all names are integers.

    Raises:
        DataError: two are equal as texts, one is neither text nor integer, or one cannot be sent.
    """
    _refuse_equal_names(names)
    kinds = [isinstance(name, numbers.Integral) and not isinstance(name, bool) for name in names]
    if any(kinds) and not all(kinds):
        raise DataError(
            f"Some columns are named by strings and some by integers, such as '{names[kinds.index(True)]}'.",
            "Use strings for all: table.columns = table.columns.map(str).",
        )
    for name in names:
        try:
            name.encode() if isinstance(name, str) else int(name)
            is_sent = isinstance(name, (str, numbers.Integral)) and not isinstance(name, bool)
        except (TypeError, ValueError):
            is_sent = False
        if not is_sent:
            raise DataError(
                f"A column is named {name!r}, which JSON cannot represent.", "Use a string: table.columns = [names]."
            )
    return bool(kinds) and all(kinds)


def _list_unused_columns(columns: Iterable[Any], features: pd.DataFrame) -> list[str]:
    used = set(map(str, features.columns))
    return [name for name in map(str, columns) if name not in used]


def infer_prediction_schema(predictions: Any) -> Schema:
    """The schema of a predictor's result for a few rows."""
    import numpy as np
    import pandas as pd

    if isinstance(predictions, (pd.DataFrame, np.ndarray)):
        return infer_schema(predictions)
    if isinstance(predictions, pd.Series):
        predictions = predictions.tolist()
    values = to_json_value(list(predictions)) if isinstance(predictions, (list, tuple)) else []
    if values and all(isinstance(value, dict) for value in values):
        return infer_schema(pd.DataFrame(values))
    if values and all(isinstance(value, list) for value in values):
        return _infer_list_schema(values)
    dtype = _infer_common_json_type(values)
    if None in values:  # a missing number is NaN; a missing flag has no value
        dtype = {"integer": "number", "boolean": None}.get(dtype or "", dtype)
    return Schema(kind="any", dtype=dtype, example=values[0] if values else None)


def _infer_list_schema(values: list[list[Any]]) -> Schema:
    """The schema of rows that are lists: an array if all hold numbers and have the same shape."""
    import numpy as np

    try:
        array = np.array(values)
    except ValueError:  # of different lengths
        array = np.array([], dtype=object)
    is_array = array.dtype.kind in "biuf" and array.size
    return infer_schema(array) if is_array else Schema(kind="any", dtype="array", example=values[0])


def _choose_inferred_example(table: pd.DataFrame) -> dict[str, Any]:
    head = table.head(1000)
    complete = head.dropna()
    row = (complete if len(complete) else head).head(1)
    values = row.astype(object).iloc[0].tolist() if len(row) else [None] * row.shape[1]
    return {str(name): to_json_value(value) for name, value in zip(row.columns, values, strict=True)}


def _infer_field(name: str, column: pd.Series[Any], example: dict[str, Any]) -> Field:
    import pandas as pd

    kind = _infer_field_type(column)
    # Databases return exact decimals, but clients send floats and models compute with floats.
    dtype = "float64" if is_decimal_column(column) else column.dtype
    nullable = bool(column.isna().any())
    field = Field(
        name=name,
        type=kind,
        dtype=str(dtype),
        nullable=nullable,
        missing=_infer_missing_marker(column) if nullable and column.dtype == object else None,
        example=example.get(name),
    )
    is_ordered = kind in ("integer", "number", "datetime") or (kind in TEXT_FORMS and TEXT_FORMS[kind].is_ordered)
    if is_ordered and column.notna().any():
        if kind == "number":
            low, high = find_number_range(column.to_numpy(dtype="float64", na_value=float("nan")))
            field = msgspec.structs.replace(field, example=choose_number_example(field.example, low))
        else:
            low, high = to_json_value(column.min()), to_json_value(column.max())
        return msgspec.structs.replace(field, minimum=low, maximum=high)
    if kind == "category":
        assert isinstance(column.dtype, pd.CategoricalDtype)
        categories = column.dtype.categories
        return msgspec.structs.replace(
            field,
            categories=to_json_value(categories.tolist()),
            category_dtype=_infer_category_dtype(categories),
            ordered=bool(column.dtype.ordered),
        )
    if kind == "string":
        values = column.dropna().unique()
        if len(values) <= MAX_CATEGORIES:
            return msgspec.structs.replace(field, categories=sorted(to_json_value(list(values))))
    return field


def _infer_category_dtype(categories: pd.Index[Any]) -> str:
    """The dtype of categories; for objects that JSON lacks, the name of their type."""
    kinds = {type(value) for value in categories} if categories.dtype == object else set()
    if kinds == {datetime.date}:
        return "date"
    return find_text_form_of_values(kinds) or str(categories.dtype)


def _infer_field_type(column: pd.Series[Any]) -> FieldType:
    import pandas as pd
    from pandas.api import types

    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return "category"
    if types.is_bool_dtype(dtype):
        return "boolean"
    if types.is_integer_dtype(dtype):
        return "integer"
    if types.is_float_dtype(dtype) or is_decimal_column(column):
        return "number"
    if types.is_datetime64_any_dtype(dtype):
        return "datetime"
    form = find_text_form(column)
    if form is not None:
        return form
    return _infer_type_from_values(
        {type(value) for value in column.dropna().head(10_000)}, is_object=types.is_object_dtype(dtype)
    )


def _infer_type_from_values(kinds: set[type], is_object: bool) -> FieldType:
    """The type of a column from the types of its values, if its dtype is not specific."""
    import numpy as np

    if not kinds:
        return "any"
    if all(issubclass(kind, str) for kind in kinds):
        return "string"
    if kinds == {datetime.date}:
        return "datetime"
    if not is_object:
        return "any"
    form = find_text_form_of_values(kinds)
    if form is not None:
        return form
    if all(issubclass(kind, (bool, np.bool_)) for kind in kinds):
        return "boolean"
    if any(issubclass(kind, (bool, np.bool_)) for kind in kinds):
        return "any"
    if all(issubclass(kind, (int, np.integer)) for kind in kinds):
        return "integer"
    return "number" if all(issubclass(kind, (int, float, np.number)) for kind in kinds) else "any"


def _infer_missing_marker(column: pd.Series[Any]) -> str | None:
    """The most frequent missing value of a column of objects; None for Python's None."""
    counts = column[column.isna()].map(type).value_counts()
    return {"float": "nan", "NAType": "NA", "NaTType": "NaT"}.get(counts.index[0].__name__)


def is_decimal_column(column: pd.Series[Any]) -> bool:
    """Whether a column holds exact decimals, Arrow's or Python's."""
    if column.dtype == object:
        return {type(value) for value in column.dropna().head(10_000)} == {Decimal}
    return str(column.dtype).startswith("decimal")


def _infer_common_json_type(values: list[Any]) -> str | None:
    """The JSON Schema type that all values have, or None when they differ."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    types = {names.get(type(value), "") for value in values if value is not None}
    if types == {"integer", "number"}:
        return "number"
    if types == {"integer"} and not all(-(2**63) <= value < 2**63 for value in values if value is not None):
        return None
    return types.pop() or None if len(types) == 1 else None
