"""Large JSON bodies: the list of rows in them is made features a piece at a time, and no piece's objects are kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mlapp.errors import InputError
from mlapp.schema.rows import Part
from mlapp.serving.decoding.codec import Codec
from mlapp.serving.decoding.json_body import INPUTS, decode_json
from mlapp.serving.decoding.json_chunks import PIECE, cut_json_array
from mlapp.serving.web.problems import HttpError

LARGE = 2 * PIECE
"""Bytes from which a body is read in pieces, in a thread: in one go it would hold up the event loop."""
BEGIN = re.compile(rb'\s*(?:\{\s*"(?P<key>\w+)"\s*:\s*)?(?P<list>\[)')
END = re.compile(rb"\]\s*(?P<brace>\}?)\s*$")


def decode_large(codec: Codec, body: bytes, keys: Sequence[str] = (INPUTS,)) -> Part | None:
    """The features in a body that is a list of rows or records, or has it, and nothing else, under one of the keys.

    None: it is small, or of another form, or wrong in a way that only the whole of it tells.

    Raises:
        InputError: a row does not fit the schema; named by its place in the whole.
    """
    array = find_list(body, keys)
    return None if array is None else decode_list(codec, array)


def find_list(body: bytes, keys: Sequence[str]) -> bytes | None:
    """The text of the list that `decode` looks for. Whether it is JSON is not checked."""
    if len(body) < LARGE:
        return None
    begin, end = BEGIN.match(body), END.search(body, max(0, len(body) - 100))
    if begin is None or end is None or bool(begin["key"]) != bool(end["brace"]):
        return None
    if begin["key"] and begin["key"].decode() not in keys:
        return None
    return body[begin.start("list") : end.start() + 1]


def decode_list(codec: Codec, array: bytes, arranged: Callable[[list[Any]], list[Any]] | None = None) -> Part | None:
    """The features in a list of rows or records; None as for `decode`.

    Args:
        array: the list, as JSON.
        arranged: makes rows in training order, or records, of some of its items.

    Raises:
        InputError: rows do not fit the schema. Of many, those are told that are in the first piece with such a row.
    """
    if not codec.is_by_row:
        return None
    parts: list[Part] = []
    rows = 0
    try:
        for piece in cut_json_array(array):
            part = (
                codec.decode_json(piece, rows)
                if arranged is None
                else codec.accept_inputs(arranged(decode_json(piece)), rows)
            )
            rows += part.rows
            parts.append(part if part.tuples is None else Part(part.rows, features=codec.combine_parts([part])))
    except HttpError:
        return None
    except InputError as error:
        if all(problem.row is not None for problem in error.problems) and _is_valid_json(array):
            raise
        return None
    if all(part.packed is not None for part in parts):
        return Part(rows, b"".join([part.packed or b"" for part in parts]))
    return Part(rows, features=codec.combine_parts(parts))


def _is_valid_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError:
        return False
    return True
