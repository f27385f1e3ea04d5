"""Schemaless documents from MongoDB, Redis or DynamoDB as tables: a nested object becomes columns `address.city`."""

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
    documents: Iterable[Mapping[str, Any]], plain: Callable[[Any], Any] = lambda value: value
) -> Iterator[pa.Table]:
    """Tables of `ROWS` documents each; at least one, which can be empty. Fields are in order of first appearance.

    Args:
        documents: the documents.
        plain: converts a value of a database type to a plain Python value.
    """
    import pyarrow as pa

    names: dict[str, None] = {}
    remaining = iter(documents)
    empty = True
    while part := [_flatten_document(document, plain) for document in itertools.islice(remaining, ROWS)]:
        empty = False
        for row in part:
            names.update(dict.fromkeys(row))
        yield pa.table({name: make_frame_array([row.get(name) for row in part]) for name in names})
    if empty:
        yield pa.table({})


def convert_flattened_texts(table: pa.Table, kept: Sequence[str]) -> pa.Table:
    """The table with text columns converted to numbers if all values are numbers, except the columns `kept`."""
    import pyarrow as pa

    for at, field in enumerate(table.schema):
        if not pa.types.is_string(field.type) or field.name in kept:
            continue
        for kind in (pa.int64(), pa.float64()):
            try:
                table = table.set_column(at, field.name, table.column(at).cast(kind))
            except pa.ArrowInvalid:
                continue
            break
    return table


def _flatten_document(document: Mapping[str, Any], plain: Callable[[Any], Any], prefix: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            row |= _flatten_document(value, plain, f"{prefix}{name}.")
        else:
            row[f"{prefix}{name}"] = (
                _flatten_list(value, plain) if isinstance(value, list | tuple | set) else plain(value)
            )
    return row


def _flatten_list(values: Iterable[Any], plain: Callable[[Any], Any]) -> list[Any]:
    ordered = sorted(values) if isinstance(values, set) else values
    return [
        {key: plain(inner) for key, inner in value.items()} if isinstance(value, Mapping) else plain(value)
        for value in ordered
    ]
