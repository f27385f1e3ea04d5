"""Finds which column pandas or scikit-learn missed, and in which table, from the error that they raise."""

from __future__ import annotations

import ast
import re
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

OWNERS = ("self", "X", "obj")
"""Local variables of pandas' and scikit-learn's functions that contain the table, or an object with the table."""
LISTED = re.compile(r"(?:Index\()?(\[[^\[\]]*\]|\{[^{}]*\})")
"""The missing names in a message, such as `['x'] not in index` or `None of [Index(['x'], dtype='str')] are in …`."""
SENTENCE = re.compile(
    r"Column not found: (.*)|.*key in a dtype mappings argument\. '(.*)' not found|String passed to weights", re.DOTALL
)
"""Messages of pandas that are not only the missing name. The last one does not contain it."""


def find_missing_columns(error: BaseException) -> tuple[list[str], list[str]] | None:
    """The columns that a table lacks, and those that it has.

    Reads the table from the frames of the traceback, so that it is the table of the failed access and no other one. The
    first list is empty if the error does not name the columns.

    Returns:
        None if the error is about anything else, such as a key of a dict or a row of a table.
    """
    if isinstance(error, AttributeError):
        table = getattr(error, "obj", None)
        return ([str(error.name)], _list_columns(table)) if _is_table(table) else None
    is_named_by_sklearn = isinstance(error, ValueError) and "not a column of the dataframe" in str(error)
    if isinstance(error, ValueError) and isinstance(error.__cause__, KeyError) and is_named_by_sklearn:
        error = error.__cause__
    is_listed_by_sklearn = isinstance(error, ValueError) and "not columns of the dataframe" in str(error)
    if not isinstance(error, KeyError) and not is_listed_by_sklearn:
        return None
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not frames or not _is_library_frame(frames[-1]):
        return None
    table = next((table for frame in reversed(frames) for table in _iterate_tables(frame)), None)
    if table is None or _is_about_rows(frames, table):
        return None
    columns = _list_columns(table)
    missing = [name for name in _list_named_columns(error) if name not in columns]
    return missing, columns


def _list_named_columns(error: BaseException) -> list[str]:
    """The names in a KeyError or in scikit-learn's message."""
    key = error.args[0] if error.args else ""
    if isinstance(key, (list, tuple, set)) or _is_pandas_type(key, "Index"):
        return [str(name) for name in key]
    if isinstance(key, str) and (sentence := SENTENCE.match(key)):
        return [name for name in sentence.groups() if name is not None]
    match = LISTED.search(key) if isinstance(key, str) else None
    if match is None:
        return [str(key)]
    try:
        return sorted(map(str, ast.literal_eval(match[1])))
    except (ValueError, SyntaxError):
        return []


def _is_about_rows(frames: list[FrameType], table: Any) -> bool:
    """Whether the innermost pandas Index of the traceback is not the table's columns."""
    owners = (frame.f_locals.get("self") for frame in reversed(frames) if _is_library_frame(frame))
    labels = next((owner for owner in owners if _is_pandas_type(owner, "Index")), None)
    return labels is not None and not labels.equals(table.columns)


def _iterate_tables(frame: FrameType) -> Iterator[Any]:
    if not _is_library_frame(frame):
        return
    for name in OWNERS:
        owner = frame.f_locals.get(name)
        for value in (owner, getattr(owner, "__dict__", {}).get("obj")):
            if _is_table(value):
                yield value


def _is_library_frame(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] in ("pandas", "sklearn")


def _is_table(value: Any) -> bool:
    """Whether it is a DataFrame. One that is not constructed yet has no `_mgr`, and no columns."""
    return _is_pandas_type(value, "DataFrame") and "_mgr" in vars(value)


def _is_pandas_type(value: Any, name: str) -> bool:
    return any(kind.__name__ == name and kind.__module__.partition(".")[0] == "pandas" for kind in type(value).__mro__)


def _list_columns(table: Any) -> list[str]:
    return [str(name) for name in table.columns]
