"""Business keys: the caller's own identifiers of a row, by which later truths refer to it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

MOST_KEYS = 16
"""Maximum keys of a row."""
MOST_COLUMNS = 64
"""Maximum columns of keys in a file of the log, whatever names clients invent."""


def are_business_keys(keys: Any) -> bool:
    """Whether a JSON value is an object of a few strings, numbers, booleans and nulls."""
    return (
        isinstance(keys, dict)
        and len(keys) <= MOST_KEYS
        and all(isinstance(value, (str, int, float, bool)) or value is None for value in keys.values())
    )


def select_key_names(names: Iterable[str]) -> list[str]:
    """The first `MOST_COLUMNS` distinct names."""
    return list(islice(dict.fromkeys(names), MOST_COLUMNS))
