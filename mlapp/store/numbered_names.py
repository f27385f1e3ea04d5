"""Names of numbered keys, such as `000003.json`.

A bucket lists its keys in order, 1,000 per request. To find the last keys without listing all of them, check whether
single keys exist: as numbers are claimed in order, this gives an approximate count, from which a listing starts. Keys
that were removed by hand only make the listing longer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable

from mlapp.plain_numbers import parse_plain_integer
from mlapp.store.storage import Storage

PAGE = 1000
"""Maximum number of keys in one response."""
PROBES = 8
"""Number of keys that are looked up at once."""
LARGEST = 999_999
"""Longer numbers do not sort by their value."""
NUMBERED = re.compile(r"(\d{6})\.json")


def format_key_number(number: int) -> str:
    """The number in a key, so that keys sort by it."""
    return f"{number:06}"


def format_number_name(number: int) -> str:
    """The name of a numbered key."""
    return f"{format_key_number(number)}.json"


def parse_number_names(names: Iterable[str]) -> set[int]:
    """The numbers in names such as `000003.json`; other names are ignored."""
    numbers = (parse_plain_integer(name[:-5]) for name in names if name.endswith(".json"))
    return {number for number in numbers if number is not None}


def append_numbered_key(storage: Storage, prefix: str, content: bytes, *, from_reserve: bool = False) -> None:
    """Create the key after the last one under a prefix. If another process takes that number, use the next."""
    while True:
        number = max(parse_number_names(storage.list_names(prefix)), default=0) + 1
        if storage.create_key(f"{prefix}/{format_number_name(number)}", content, from_reserve=from_reserve):
            return


def find_numbered_names_start(
    first_page: list[str], count: int, check_existence: Callable[[list[str]], list[bool]]
) -> str | None:
    """The name to start a listing after, so that it contains at least the last `count` names; None to list all.

    Args:
        first_page: the first names in the bucket.
        check_existence: returns whether each of some names exists.
    """
    last = NUMBERED.fullmatch(max(first_page))
    if last is None:
        return None
    low, high = int(last[1]), None
    while high is None or high - low > PAGE:
        if high is None:
            numbers = [low << shift for shift in range(1, PROBES + 1)]
        else:
            step = -(-(high - low) // (PROBES + 1))
            numbers = list(range(low + step, high, step))
        numbers = [number for number in numbers if number < LARGEST]
        existing = check_existence([format_number_name(number) for number in numbers])
        low = max([low, *itertools.compress(numbers, existing)])
        high = min([number for number in numbers if number > low], default=LARGEST)
    return format_number_name(max(low - count, 0)) if high < LARGEST else None
