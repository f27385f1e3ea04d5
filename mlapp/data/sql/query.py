"""Converts a query with named parameters, such as `:since`, to the placeholders of each database."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlapp.data.source import refuse_misfit_source_parameters, to_data_source_value
from mlapp.errors import UsageError

# A colon in a string, a quoted name, a comment, a cast (`::date`) or a slice (`[1:2]`) does not start a parameter.
_LEXEMES = r"""
    {text} | "(?:[^"]|"")*" | `[^`]*` | --[^\n]* | /\*.*?\*/ | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$
  | :: | (?<![\w\]:]):(?P<name>[A-Za-z_]\w*)
"""
_STANDARD = re.compile(_LEXEMES.format(text=r"[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*'"), re.VERBOSE | re.DOTALL)
_BACKSLASHES = re.compile(_LEXEMES.format(text=r"'(?:[^'\\]|\\.|'')*'"), re.VERBOSE | re.DOTALL)


@dataclass(frozen=True)
class BoundQuery:
    """A query with the placeholders of a database.

    Attributes:
        values: by name, in the order of the placeholders.
    """

    text: str
    values: dict[str, Any]
    _offsets: list[tuple[int, int]] = field(repr=False)

    def find_original_query_position(self, position: int) -> int:
        """The position in the original query that corresponds to a position in the text; both from 0."""
        bound_start, source_start = self._offsets[bisect_right(self._offsets, (position, position)) - 1]
        return source_start + position - bound_start


def find_query_parameters(query: str, *, backslashes: bool = False) -> list[str]:
    """The distinct parameters of a query, in order of first appearance."""
    return list(dict.fromkeys(match["name"] for match in _find_query_placeholders(query, backslashes)))


def bind_query_parameters(
    query: str,
    values: Mapping[str, Any],
    style: Callable[[int, str], str],
    *,
    rest: Callable[[str], str] = str,
    backslashes: bool = False,
) -> BoundQuery:
    """Convert parameters to the placeholders of a database.

    A list becomes one placeholder per item, so that `IN :ids` works. NumPy and pandas values become Python values.

    Args:
        query: the SQL with `:name` for a parameter.
        values: a value for each parameter.
        style: returns the placeholder of a parameter from its number (from 1) and its name.
        rest: escapes the text between parameters.
        backslashes: whether a backslash in a string escapes the next character, as in MySQL.

    Raises:
        UsageError: a parameter has no value, a value has no parameter, or a list is empty.
    """
    names = find_query_parameters(query, backslashes=backslashes)
    refuse_misfit_source_parameters(names, values, "the query")
    values = {name: to_data_source_value(value) for name, value in values.items()}
    flat: dict[str, Any] = {}
    groups: dict[str, list[str]] = {}
    for name in names:
        value = values[name]
        if isinstance(value, list | tuple | set | frozenset):
            if not value:
                raise UsageError(f"The parameter :{name} is an empty list.", "Give it at least one value.")
            items = {f"{name}_{number}": item for number, item in enumerate(value, 1)}
        else:
            items = {name: value}
        flat |= items
        groups[name] = list(items)
    numbers = {name: number for number, name in enumerate(flat, 1)}

    def make_placeholder(name: str) -> str:
        each = [style(numbers[item], item) for item in groups[name]]
        return each[0] if groups[name] == [name] else f"({', '.join(each)})"

    parts: list[str] = []
    offsets = [(0, 0)]
    bound_length = source_end = 0
    for match in _find_query_placeholders(query, backslashes):
        parts += [rest(query[source_end : match.start()]), make_placeholder(match["name"])]
        bound_length += len(parts[-2]) + len(parts[-1])
        source_end = match.end()
        offsets.append((bound_length, source_end))
    parts.append(rest(query[source_end:]))
    return BoundQuery("".join(parts), flat, offsets)


def _find_query_placeholders(query: str, backslashes: bool) -> list[re.Match[str]]:
    return [match for match in (_BACKSLASHES if backslashes else _STANDARD).finditer(query) if match["name"]]
