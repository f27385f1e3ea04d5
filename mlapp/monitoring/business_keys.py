"""Business keys: the caller's names of a row, for the truth that follows later."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

MOST_KEYS = 16
"""Keys of a row."""
MOST_COLUMNS = 64
"""Columns of keys in a file of the log. A client that invents names makes it no larger."""


def are_business_keys(keys: Any) -> bool:
    """Whether a JSON value is an object of a few strings, numbers, booleans and nulls."""
    return (
        isinstance(keys, dict)
        and len(keys) <= MOST_KEYS
        and all(isinstance(value, (str, int, float, bool)) or value is None for value in keys.values())
    )


def select_key_names(names: Iterable[str]) -> list[str]:
    """The names, each once, without those after the first `MOST_COLUMNS`."""
    return list(islice(dict.fromkeys(names), MOST_COLUMNS))
