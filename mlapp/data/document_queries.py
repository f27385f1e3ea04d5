"""Parameters in queries of document databases: a text `":name"` anywhere in the dicts and lists of a query."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any


def fill_document_query(pattern: Any, values: Mapping[str, Any]) -> Any:
    """The query with each text `":name"` replaced by the parameter's value."""
    if isinstance(pattern, str) and pattern.startswith(":") and pattern[1:] in values:
        return values[pattern[1:]]
    if isinstance(pattern, Mapping):
        return {key: fill_document_query(value, values) for key, value in pattern.items()}
    if isinstance(pattern, list | tuple):
        return [fill_document_query(value, values) for value in pattern]
    return pattern


def find_document_query_parameters(pattern: Any) -> list[str]:
    """The names of the parameters in a query."""
    if isinstance(pattern, str):
        return [pattern[1:]] if pattern.startswith(":") and pattern[1:].isidentifier() else []
    if isinstance(pattern, Mapping):
        return [name for value in pattern.values() for name in find_document_query_parameters(value)]
    if isinstance(pattern, list | tuple):
        return [name for value in pattern for name in find_document_query_parameters(value)]
    return []


def convert_document_date(value: Any) -> Any:
    """Convert a date to midnight in UTC, for databases that only have timestamps."""
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.timezone.utc)
    return value
