"""Converts normalized predictions to JSON values, one per row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from mlapp.errors import DataError
from mlapp.normalization.containers import normalize_predictions
from mlapp.normalization.json_size import MANY, estimate_json_values
from mlapp.normalization.scalars import JSON_TYPES, NoJsonError, format_column_name, list_time_scalars, normalize_scalar

if TYPE_CHECKING:
    import pandas as pd

TEXT = frozenset((str,))


def normalize_to_rows(predictions: Any, title: str) -> list[Any]:
    """Normalized predictions as a list of JSON values, one per row. NaN stays: JSON's encoder writes null.

    Dates, times and durations become ISO 8601 texts; decimals floats; UUIDs, paths and intervals texts; members of an
    enumeration their values; bytes base64; dataclasses and models of pydantic, attrs and msgspec records; missing
    values null.

    Raises:
        DataError: JSON has no form for a value; names its type and row.
    """
    try:
        if type(predictions) is list:
            return (
                predictions if _are_json_rows(predictions) else [_normalize_json_row_value(row) for row in predictions]
            )
        if hasattr(predictions, "columns"):
            return _list_normalized_records(predictions)
        return _list_json_row_values(predictions)
    except NoJsonError as error:
        raise _unsupported_json_row_error(predictions, title, error) from None


def normalize_to_json(value: Any, title: str) -> Any:
    """One value, for example of a stream, as a JSON value; see `normalize_to_rows`.

    Raises:
        DataError: JSON cannot represent it.
    """
    try:
        return _normalize_json_row_value(value)
    except NoJsonError as error:
        raise _unsupported_json_row_error([value], title, error) from None


def _are_json_rows(rows: list[Any]) -> bool:
    """Whether rows are JSON values, or lists or records of them. Runs in C, in parts if there are many values."""
    count = estimate_json_values(rows)
    if count <= MANY:
        return _are_few_json_rows(rows)
    step = max(MANY * len(rows) // count, 1)
    return all(_are_few_json_rows(rows[at : at + step]) for at in range(0, len(rows), step))


def _are_few_json_rows(rows: list[Any]) -> bool:
    kinds = set(map(type, rows))
    if JSON_TYPES.issuperset(kinds):
        return True
    if kinds == {dict}:
        return TEXT.issuperset(map(type, chain.from_iterable(rows))) and JSON_TYPES.issuperset(
            map(type, chain.from_iterable(map(dict.values, rows)))
        )
    return kinds == {list} and JSON_TYPES.issuperset(map(type, chain.from_iterable(rows)))


def _list_normalized_records(table: pd.DataFrame) -> list[Any]:
    names = list(table.columns)
    columns = [_list_json_row_values(table.iloc[:, at]) for at in range(len(names))]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] if names else [{}] * len(table)


def _list_json_row_values(column: Any) -> list[Any]:
    """The values of an array or a Series, converted in chunks."""
    kind = column.dtype.kind
    if kind in "biufU" and column.size <= MANY and _has_numpy_json_rows(column):
        values: list[Any] = column.tolist()
        return values
    if kind in "cV" and column.dtype != object:
        raise NoJsonError(str(column.dtype))
    if kind in "mM" and not hasattr(column, "iloc"):
        column = list_time_scalars(column)
        kind = "O"
    rows = getattr(column, "iloc", column)
    values = []
    step = max(MANY * len(column) // max(column.size, 1), 1)
    for at in range(0, len(column), step):
        values += rows[at : at + step].tolist()
    if kind in "biufU" and _has_numpy_json_rows(column):
        return values
    return (
        values if JSON_TYPES.issuperset(map(type, values)) else [_normalize_json_row_value(value) for value in values]
    )


def _has_numpy_json_rows(column: Any) -> bool:
    """Whether the values are plain NumPy values. pandas' nullable types can hold NA."""
    return hasattr(column.dtype, "itemsize") and not hasattr(column.dtype, "na_value")


def _normalize_json_row_value(value: Any) -> Any:
    """A value as JSON represents it.

    Raises:
        NoJsonError: JSON cannot represent it.
    """
    kind = type(value)
    if kind in JSON_TYPES:
        return value
    if kind is dict:
        if JSON_TYPES.issuperset(map(type, value.values())) and all(type(key) is str for key in value):
            return value
        return _normalize_record(value)
    if kind in (list, tuple):
        return [_normalize_json_row_value(item) for item in value]
    plain = normalize_scalar(value)
    if plain is value:
        return _normalize_json_row_structure(value)
    return plain if type(plain) in JSON_TYPES else _normalize_json_row_value(plain)


def _normalize_json_row_structure(value: Any) -> Any:
    """A compound value as JSON represents it: a record, a list, a table."""
    if isinstance(value, Mapping):
        return _normalize_record(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _normalize_record({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, msgspec.Struct):
        return _normalize_record(msgspec.structs.asdict(value))
    if hasattr(value, "model_dump"):  # pydantic's
        return _normalize_json_row_value(value.model_dump(mode="json"))
    if hasattr(type(value), "__attrs_attrs__"):
        return _normalize_record({field.name: getattr(value, field.name) for field in type(value).__attrs_attrs__})
    if isinstance(value, type) or callable(value):
        raise NoJsonError(type(value).__name__)
    if isinstance(value, Set):
        return [_normalize_json_row_value(item) for item in value]
    try:
        rows = normalize_predictions(value, "")
        return (
            _list_normalized_records(rows)
            if hasattr(rows, "columns")
            else [_normalize_json_row_value(row) for row in _list_normalized_rows(rows)]
        )
    except DataError:
        raise NoJsonError(type(value).__name__) from None


def _list_normalized_rows(rows: Any) -> list[Any]:
    return rows if isinstance(rows, list) else _list_json_row_values(rows)


def _normalize_record(record: Mapping[Any, Any]) -> dict[str, Any]:
    normalized = {format_column_name(name): _normalize_json_row_value(value) for name, value in record.items()}
    if len(normalized) < len(record):
        raise NoJsonError("dict with two keys that have the same text")
    return normalized


def _unsupported_json_row_error(predictions: Any, title: str, error: NoJsonError) -> DataError:
    """The error for a value that JSON cannot represent, with its row if known."""
    where = ""
    for row, value in enumerate(predictions if isinstance(predictions, list) else ()):
        try:
            _normalize_json_row_value(value)
        except NoJsonError:
            where = f" in row {row}"
            break
    return DataError(
        f"{title} returned a {error}{where}, which JSON cannot represent.",
        "Return numbers, strings, dates, lists, dicts, dataclasses or pydantic models.",
    )
