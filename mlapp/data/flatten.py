"""Converts documents of MongoDB, Redis and DynamoDB to tables: a nested object becomes columns like `address.city`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlapp.data.frames import make_frame_array

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 10_000
"""Documents per part."""


def flatten_documents(
    documents: Iterable[Mapping[str, Any]], to_plain: Callable[[Any], Any] = lambda value: value
) -> Iterator[pa.Table]:
    """Tables of `ROWS` documents each; at least one, which can be empty. Fields are in order of first appearance.

    Args:
        documents: the documents.
        to_plain: converts a value of a database type to a plain Python value.
    """
    import pyarrow as pa

    names: dict[str, None] = {}
    remaining = iter(documents)
    is_empty = True
    while part := [_flatten_document(document, to_plain) for document in itertools.islice(remaining, ROWS)]:
        is_empty = False
        for row in part:
            names.update(dict.fromkeys(row))
        yield pa.table({name: make_frame_array([row.get(name) for row in part]) for name in names})
    if is_empty:
        yield pa.table({})


def convert_flattened_texts(table: pa.Table, text_columns: Sequence[str]) -> pa.Table:
    """The table with columns of numeric texts converted to numbers, except for the columns `text_columns`."""
    import pyarrow as pa

    for at, field in enumerate(table.schema):
        if not pa.types.is_string(field.type) or field.name in text_columns:
            continue
        for kind in (pa.int64(), pa.float64()):
            try:
                table = table.set_column(at, field.name, table.column(at).cast(kind))
            except pa.ArrowInvalid:
                continue
            break
    return table


def _flatten_document(document: Mapping[str, Any], to_plain: Callable[[Any], Any], prefix: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            row |= _flatten_document(value, to_plain, f"{prefix}{name}.")
        else:
            row[f"{prefix}{name}"] = (
                _flatten_list(value, to_plain) if isinstance(value, list | tuple | set) else to_plain(value)
            )
    return row


def _flatten_list(values: Iterable[Any], to_plain: Callable[[Any], Any]) -> list[Any]:
    ordered = sorted(values) if isinstance(values, set) else values
    return [
        {key: to_plain(inner) for key, inner in value.items()} if isinstance(value, Mapping) else to_plain(value)
        for value in ordered
    ]
