"""Errors of a database, with advice on how to fix them."""

from __future__ import annotations

import re

from mlapp.data.reconnect import UnreachableError
from mlapp.errors import DataError

_TODO = {
    "password authentication failed": "Check the user and the password in the address.",
    "no password supplied": "Give the password in the address: postgresql://user:${DB_PASSWORD}@host/database.",
    "access denied": "Check the user and the password in the address, and what that user may read.",
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


def unreachable_database_error(shown: str, message: str) -> UnreachableError:
    """The error for a failed connection. `message` is the database's message without secrets."""
    line = " ".join(message.split())
    todo = next((todo for sign, todo in _TODO.items() if sign in line.lower()), "Check the address.")
    if 'database "' in line and "does not exist" in line:
        todo = _TODO["unknown database"]
    return UnreachableError(f"{shown} cannot be reached: {line}", todo)


def refused_query_error(query: str, message: str, place: int | None = None) -> DataError:
    """The error for a refused query. `place` is the position (from 0) of the error in the query, if known."""
    place = _find_quoted_query_position(query, message) if place is None else place
    line = " ".join(message.split()).rstrip(".")
    if place is None:
        todo = next((todo for sign, todo in _TODO.items() if sign in line.lower()), "Fix the query.")
        return DataError(f"The query failed: {line}.", todo)
    before = query[:place]
    row, column = before.count("\n") + 1, place - before.rfind("\n")
    return DataError(
        f"The query failed at line {row}, column {column}: {line}.", f"Fix it there: {_excerpt_query(query, place)}"
    )


def _excerpt_query(query: str, place: int) -> str:
    """The line of the query with the position, which is marked with `▶`."""
    start = query.rfind("\n", 0, place) + 1
    end = query.find("\n", place)
    end = len(query) if end < 0 else end
    left, right = max(start, place - 50), min(end, place + 50)
    ahead, behind = "…" if left > start else "", "…" if right < end else ""
    return f"{ahead}{query[left:place]}▶{query[place:right]}{behind}"


def _find_quoted_query_position(query: str, message: str) -> int | None:
    """The position in the query of the part that the message quotes."""
    for pattern in _QUOTED:
        found = pattern.search(message)
        if found is None:
            continue
        pieces = found.groupdict()
        if "piece" in pieces:
            at = query.find(pieces["piece"])
            return at if at >= 0 else None
        word = re.search(rf"(?<!\w){re.escape(pieces['word'])}(?!\w)", query)
        return word.start() if word else None
    return None
