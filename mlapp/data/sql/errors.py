"""Errors of a database, with advice on how to fix them."""

from __future__ import annotations

import re

from mlapp.data.reconnect import UnreachableError
from mlapp.errors import DataError

_TODO = {
    "password authentication failed": "Check the user and the password in the address.",
    "no password supplied": "Give the password in the address: postgresql://user:${DB_PASSWORD}@host/database.",
    "access denied": "Check the user and the password in the address, and that user's permissions.",
    "permission denied": "Ask for permission to read it: GRANT SELECT.",
    "unknown database": "Check the database's name in the address.",
    "refused": "Check the host and the port in the address, and that the database is running.",
    "can't connect": "Check the host and the port in the address, and that the database is running.",
    "could not translate host name": "Check the host's name in the address.",
    "timeout": "Check the host and the port in the address, and that no firewall blocks the connection.",
}

# Databases that report no position quote the part of the query with the error.
_QUOTED = (
    re.compile(r"near '(?P<piece>.+?)' at line", re.DOTALL),
    re.compile(r"near \"(?P<word>[^\"]+)\""),
    re.compile(r"no such (?:table|column|function): (?:\w+\.)*(?P<word>\w+)"),
    re.compile(r"(?:table|column|function)(?: with name)? ['\"]?(?:[^'\" ]+\.)?(?P<word>\w+)['\"]?", re.IGNORECASE),
)


def unreachable_database_error(display_name: str, message: str) -> UnreachableError:
    """The error for a failed connection.

    Args:
        display_name: the address without secrets.
        message: the database's message without secrets.
    """
    line = " ".join(message.split())
    todo = next((todo for sign, todo in _TODO.items() if sign in line.lower()), "Check the address.")
    if 'database "' in line and "does not exist" in line:
        todo = _TODO["unknown database"]
    return UnreachableError(f"{display_name} cannot be reached: {line}", todo)


def refused_query_error(query: str, message: str, position: int | None = None) -> DataError:
    """The error for a refused query.

    Args:
        message: the database's message without secrets.
        position: the position of the error in the query, from 0, if known.
    """
    position = _find_quoted_query_position(query, message) if position is None else position
    line = " ".join(message.split()).rstrip(".")
    if position is None:
        todo = next((todo for sign, todo in _TODO.items() if sign in line.lower()), "Fix the query.")
        return DataError(f"The query failed: {line}.", todo)
    before = query[:position]
    row, column = before.count("\n") + 1, position - before.rfind("\n")
    return DataError(
        f"The query failed at line {row}, column {column}: {line}.", f"Fix it there: {_excerpt_query(query, position)}"
    )


def _excerpt_query(query: str, position: int) -> str:
    """The line of the query around the position, which `▶` marks."""
    start = query.rfind("\n", 0, position) + 1
    end = query.find("\n", position)
    end = len(query) if end < 0 else end
    left, right = max(start, position - 50), min(end, position + 50)
    prefix, suffix = "…" if left > start else "", "…" if right < end else ""
    return f"{prefix}{query[left:position]}▶{query[position:right]}{suffix}"


def _find_quoted_query_position(query: str, message: str) -> int | None:
    """The position of the part of the query that the message quotes."""
    for pattern in _QUOTED:
        match = pattern.search(message)
        if match is None:
            continue
        pieces = match.groupdict()
        if "piece" in pieces:
            at = query.find(pieces["piece"])
            return at if at >= 0 else None
        word = re.search(rf"(?<!\w){re.escape(pieces['word'])}(?!\w)", query)
        return word.start() if word else None
    return None
