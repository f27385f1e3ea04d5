"""Converts the inputs of a request to a table of the schema's columns, in their order and types."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlapp.errors import InputError, Problem
from mlapp.schema.column_check import MAX_REPORTED, check_column_names, check_record_columns
from mlapp.schema.conform import conform_columns, conform_table
from mlapp.schema.fields import Schema

if TYPE_CHECKING:
    import pandas as pd


def make_request_table(
    inputs: Any, schema: Schema, first_row: int = 0, *, ignore_unknown: bool = False
) -> pd.DataFrame:
    """Records, rows or columns as a DataFrame with the schema's columns, in training order and type.

    Args:
        inputs: a DataFrame; a list of records `[{"a": 1}, …]`; one record; rows `[[1, 2], …]` in training
            order; columns `{"a": [1, …]}`; or, for a single column, its values `[1, …]`.
        first_row: the number of the first record or row, if they are a part of a larger list.
        ignore_unknown: drop unknown columns. Unused columns of the training table, such as the
            target, are always dropped.

    Raises:
        InputError: names each unknown, missing or mistyped column, and the row if possible.
    """
    import pandas as pd

    if isinstance(inputs, pd.DataFrame):
        return conform_table(inputs, schema, ignore_unknown=ignore_unknown)
    if isinstance(inputs, Mapping):
        if _are_request_columns(inputs, schema):
            check_column_names([str(name) for name in inputs], schema, ignore_unknown=ignore_unknown)
            used = set(schema.names)
            return conform_table(
                _make_table_from_columns({name: inputs[name] for name in inputs if str(name) in used}), schema
            )
        return _make_table_from_records([inputs], schema, 0, ignore_unknown)
    if not _is_request_column(inputs) or isinstance(inputs, (str, bytes)):
        raise _not_a_request_table_error(inputs)
    items = list(inputs)
    if not items:
        raise InputError([Problem("inputs is empty: there is nothing to predict")], "Send at least one record or row.")
    if all(isinstance(item, Mapping) for item in items):
        return _make_table_from_records(items, schema, first_row, ignore_unknown)
    if all(_is_request_column(item) for item in items):
        return conform_table(_make_table_from_rows(items, schema, first_row), schema, first_row)
    if len(schema.fields) == 1 and not any(isinstance(item, Mapping) or _is_request_column(item) for item in items):
        return conform_table(_make_table_from_rows([[item] for item in items], schema, first_row), schema, first_row)
    odd_row = next((row for row, item in enumerate(items) if not isinstance(item, type(items[0]))), 0)
    if isinstance(items[odd_row], Mapping) or _is_request_column(items[odd_row]):
        raise InputError(
            [Problem(f"row {first_row + odd_row} is not of the same kind as row 0", row=first_row + odd_row)],
            "Send only records, or only rows.",
        )
    raise _not_a_request_table_error(items[odd_row])


def _are_request_columns(inputs: Mapping[str, Any], schema: Schema) -> bool:
    """Whether a mapping has a list of values for each column. False for a record whose cells are lists."""
    if not inputs or not all(_is_request_column(value) for value in inputs.values()):
        return False
    of_lists = {field.name for field in schema.fields if isinstance(field.example, list)}
    return all(
        str(name) not in of_lists or all(value is None or _is_request_column(value) for value in values)
        for name, values in inputs.items()
    )


def _is_request_column(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (hasattr(value, "__array__") and getattr(value, "ndim", 0) > 0)


def _not_a_request_table_error(value: Any) -> InputError:
    return InputError(
        [Problem(f"inputs contains a {type(value).__name__} instead of a record or a row")],
        'Send records [{"name": value}], rows [[value]] or columns {"name": [values]}.',
    )


def _make_table_from_columns(columns: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    import pandas as pd

    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        first, *others = lengths
        odd = next(name for name in others if lengths[name] != lengths[first])
        raise InputError(
            [Problem(f"column '{odd}' has {lengths[odd]} values, column '{first}' has {lengths[first]}", field=odd)],
            "Send columns of the same length.",
        )
    if not lengths[next(iter(lengths))]:
        raise InputError(
            [Problem("inputs is empty: there is nothing to predict")], "Send at least one value per column."
        )
    return pd.DataFrame({str(name): _make_untyped_request_column(values) for name, values in columns.items()})


def _make_table_from_records(
    records: list[Mapping[str, Any]], schema: Schema, first_row: int, ignore_unknown: bool
) -> pd.DataFrame:
    import pandas as pd

    check_record_columns(records, schema, first_row, ignore_unknown=ignore_unknown)
    columns = {name: _make_untyped_request_column([record[name] for record in records]) for name in schema.names}
    return conform_columns(columns, schema, first_row, pd.RangeIndex(len(records)))


def _make_table_from_rows(rows: list[Sequence[Any]], schema: Schema, first_row: int) -> pd.DataFrame:
    import pandas as pd

    names = schema.names
    wrong = ((row, len(values)) for row, values in enumerate(rows, first_row) if len(values) != len(names))
    problems = [
        Problem(f"row {row} has {width} values; the model takes {len(names)}", row=row)
        for row, width in itertools.islice(wrong, MAX_REPORTED)
    ]
    if problems:
        raise InputError(problems, f"Send these values, in this order: {', '.join(names)}.")
    return pd.DataFrame(
        {name: _make_untyped_request_column([row[at] for row in rows]) for at, name in enumerate(names)}
    )


def _make_untyped_request_column(values: Sequence[Any]) -> pd.Series[Any]:
    """A Series with unchanged values: pandas would convert True to 1, and `None` to a number."""
    import pandas as pd

    return pd.Series(list(values), dtype=object)
