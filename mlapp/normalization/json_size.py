"""Estimates how many JSON values predictions hold, to convert and encode them in parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MANY = 20_000
"""Maximum values that are converted in one call: between two calls, other threads run."""
CHARACTERS_PER_VALUE = 16
"""Characters of a text that take as long to encode as a number."""
SHORT = frozenset((float, int, bool, type(None)))
"""Types of values that are one value each."""


def estimate_json_values(values: Sequence[Any]) -> int:
    """The number of JSON values in a list or an array, as if all its rows were like the first.

    A long text counts as several values.
    """
    count = len(values)
    if not count or type(values[0]) in SHORT:
        return count
    if hasattr(values, "size"):  # an array
        return int(values.size)
    first = values[0]
    kind = type(first)
    while (kind is list or kind is dict) and first:
        count *= len(first)
        first = first[0] if kind is list else next(iter(first.values()))
        kind = type(first)
    return count * (1 + len(first) // CHARACTERS_PER_VALUE) if kind is str else count
