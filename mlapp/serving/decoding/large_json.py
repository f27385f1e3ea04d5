"""Decodes large JSON bodies: converts the list of rows to features in chunks, without keeping a chunk's objects."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mlapp.errors import InputError
from mlapp.schema.part import Part
from mlapp.serving.decoding.codec import Codec
from mlapp.serving.decoding.json_body import INPUTS, bound_json_values, decode_json
from mlapp.serving.decoding.json_chunks import CHUNK_BYTES, MAX_START_BYTES, cut_json_array
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.problems import HttpError

LARGE = 2 * CHUNK_BYTES
"""Minimum bytes of a body that is decoded in chunks and in a thread, so that it does not block the event loop."""
ROWS = 50_000
"""Maximum rows that are converted to features together, for a body of columns."""
BEGIN = re.compile(rb'\s*(?:\{\s*"(?P<key>\w+)"\s*:\s*)?(?P<list>\[)')
END = re.compile(rb"\]\s*(?P<brace>\}?)\s*$")


def decode_large_json(codec: Codec, body: bytes, budget: Budget, keys: Sequence[str] = (INPUTS,)) -> Part | None:
    """The features in a body that is a list of rows or records, or an object with only such a list under a known key.

    None if it is small, has another form, or has an error that only decoding the whole body can report.

    Raises:
        InputError: a row does not fit the schema; names its number in the body. HttpError: the budget is exhausted.
    """
    array = find_large_json_inputs(body, keys)
    part = (
        _decode_large_columns(codec, body, budget, keys) if array is None else decode_large_list(codec, array, budget)
    )
    if part is None and len(body) >= LARGE:
        budget.take(bound_json_values(body))
    return part


def _decode_large_columns(codec: Codec, body: bytes, budget: Budget, keys: Sequence[str]) -> Part | None:
    """The features in a large body with lists of numbers or texts by column name; None for other bodies."""
    columns = _find_large_columns(codec, body, keys)
    if columns is None:
        return None
    inputs: dict[str, Any] = {}
    floats = {field.name for field in codec.predictor.schema.features.fields if field.dtype == "float64"}
    for name, raw in columns.items():
        text = bytes(raw)
        values = _read_large_floats(text, budget) if name in floats else None
        if values is None:
            values = _decode_large_column(text, budget)
        if values is None:
            return None
        inputs[name] = values
    lengths = set(map(len, inputs.values()))
    if len(lengths) != 1 or not all(hasattr(values, "dtype") for values in inputs.values()):
        return codec.accept_inputs({name: _list_large_json_column(values) for name, values in inputs.items()})
    return _accept_large_arrays(codec, inputs, lengths.pop())


def _find_large_columns(codec: Codec, body: bytes, keys: Sequence[str]) -> dict[str, msgspec.Raw] | None:
    """The JSON list of each column in a large body, not checked to be JSON; None if the body has another form."""
    if (
        len(body) < LARGE
        or not codec.is_by_row
        or body.count(b"{") != 2
        or codec.predictor.schema.features.kind != "table"
    ):
        return None
    try:
        bodies = msgspec.json.decode(body, type=dict[str, dict[str, msgspec.Raw]])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if len(bodies) != 1 or next(iter(bodies)) not in keys:
        return None
    columns = next(iter(bodies.values()))
    if len(columns) > codec.max_columns:
        return None
    if any(bytes(text).count(b"[") != 1 for text in columns.values()):  # a list within a list
        return None
    quotes = 2 + 2 * len(columns) + sum(bytes(text).count(b'"') for text in columns.values())
    if body.count(b'"') != quotes:  # a duplicate name
        return None
    return columns


def _decode_large_column(text: bytes, budget: Budget) -> Any | None:
    """The values of a column, read in chunks: an array if all have one type, otherwise a list; None if not a list."""
    chunks: list[Any] = []
    for chunk in cut_json_array(text):
        if len(chunk) > LARGE:
            bound_json_values(chunk)
        values = decode_json(chunk)
        if not isinstance(values, list):
            return None
        budget.take(len(values))
        chunks.append(_pack_large_values(values))
    return _join_large_columns(chunks)


def _read_large_floats(text: bytes, budget: Budget) -> Any | None:
    """The numbers of a column of floats, read by simdjson; None for other texts and for an empty list."""
    from mlapp.schema.number_rows import read_json_number_row

    numbers = read_json_number_row(text, "float64")
    if numbers is None or not len(numbers):
        return None
    budget.take(len(numbers))
    return numbers


def _accept_large_arrays(codec: Codec, columns: dict[str, Any], rows: int) -> Part:
    """Convert arrays of numbers to features, in chunks of rows."""
    import pandas as pd

    parts = codec.create_collector(codec)
    for at in range(0, max(rows, 1), ROWS):
        table = pd.DataFrame({name: values[at : at + ROWS] for name, values in columns.items()})
        parts.add(codec.accept_inputs(table, at))
    return parts.join()


def _pack_large_values(values: list[Any]) -> Any:
    """Integers, floats or booleans as an array; other values, and a mixture of types, unchanged."""
    import numpy as np

    kinds = set(map(type, values))
    dtype = {int: "int64", float: "float64", bool: "bool"}.get(kinds.pop()) if len(kinds) == 1 else None
    try:
        return values if dtype is None else np.array(values, dtype)
    except OverflowError:
        return values


def _join_large_columns(chunks: list[Any]) -> Any:
    """The chunks of a column as one array if all have the same type, otherwise as one list."""
    import numpy as np

    if len({getattr(chunk, "dtype", None) for chunk in chunks}) == 1 and hasattr(chunks[0], "dtype"):
        return np.concatenate(chunks)
    return list(itertools.chain.from_iterable(map(_list_large_json_column, chunks)))


def _list_large_json_column(values: Any) -> list[Any]:
    listing: list[Any] = values if isinstance(values, list) else values.tolist()
    return listing


def find_large_json_inputs(body: bytes, keys: Sequence[str]) -> bytes | None:
    """The list of inputs in a large body, not checked to be JSON; None if the body is small or has another form."""
    if len(body) < LARGE:
        return None
    begin, end = BEGIN.match(body, 0, MAX_START_BYTES), END.search(body, max(0, len(body) - 100))
    if begin is None or end is None or bool(begin["key"]) != bool(end["brace"]):
        return None
    if begin["key"] and begin["key"].decode() not in keys:
        return None
    return body[begin.start("list") : end.start() + 1]


def decode_large_list(
    codec: Codec, array: bytes, budget: Budget, arrange_rows: Callable[[list[Any]], list[Any]] | None = None
) -> Part | None:
    """The features in a list of rows or records; None as for `decode_large_json`.

    Args:
        array: the list, as JSON.
        arrange_rows: converts some of its items to rows in training order, or records.

    Raises:
        InputError: rows do not fit the schema; names those of the first chunk that has such rows.
    """
    if not codec.is_by_row:
        return None
    parts = codec.create_collector(codec)
    try:
        for chunk in cut_json_array(array):
            budget.check()
            if len(chunk) > LARGE:  # a row can be that large
                bound_json_values(chunk)
            part = (
                codec.decode_json(chunk, parts.rows)
                if arrange_rows is None
                else codec.accept_inputs(arrange_rows(decode_json(chunk)), parts.rows)
            )
            budget.take(part.rows * codec.width)
            parts.add(part)
    except HttpError as error:
        if error.status in (413, 504):
            raise
        return None
    except InputError as error:
        if all(problem.row is not None for problem in error.problems) and _is_valid_large_json(array):
            raise
        return None
    return parts.join()


def _is_valid_large_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError:
        return False
    return True
