"""Folders `key=value` in the paths of files, as columns of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def add_partition_columns(table: pa.Table, values: Mapping[str, Any], columns: Sequence[str] | None) -> pa.Table:
    """The table with a column for each folder `key=value`."""
    import pyarrow as pa

    for name, value in values.items():
        if name not in table.column_names and (columns is None or name in columns):
            table = table.append_column(name, pa.repeat(value, table.num_rows))
    return table.select(list(columns)) if columns is not None else table


def convert_partition_values(partitions: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The values of the folders, as integers or dates if all values of a key are."""
    names = {name for each in partitions for name in each}
    converted = {
        name: _choose_partition_converter([each[name] for each in partitions if name in each]) for name in names
    }
    return [{name: converted[name](value) for name, value in each.items()} for each in partitions]


def _choose_partition_converter(values: Sequence[str]) -> Any:
    for convert in (int, date.fromisoformat):
        try:
            for value in values:
                convert(value)
        except ValueError:
            continue
        return convert
    return str
