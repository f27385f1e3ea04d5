"""Names of numbered keys, such as `000003.json`: written, read, claimed one after another, and found in a bucket.

A bucket lists its keys in order, 1,000 a request. Numbers are claimed one after another, so whether some keys exist
tells about how many there are. A list from there on then contains all later keys: keys that were removed by hand make
it longer, not wrong.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable

from mlapp.plain_numbers import parse_plain_integer
from mlapp.store.storage import Storage

PAGE = 1000
"""Most keys in the answer to one request."""
PROBES = 8
"""Keys that are looked up at once."""
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
    """The numbers of the names that have one."""
    found = (parse_plain_integer(name[:-5]) for name in names if name.endswith(".json"))
    return {number for number in found if number is not None}


def append_numbered_key(storage: Storage, prefix: str, content: bytes, *, from_reserve: bool = False) -> None:
    """Create the key after the last one under a prefix. If another process takes that number, use the next."""
    while True:
        number = max(parse_number_names(storage.list_names(prefix)), default=0) + 1
        if storage.create_key(f"{prefix}/{format_number_name(number)}", content, from_reserve=from_reserve):
            return


def find_numbered_names_start(first_page: list[str], count: int, have: Callable[[list[str]], list[bool]]) -> str | None:
    """The name after which the last `count` names and more are; None to list all.

    Args:
        first_page: the first names.
        have: whether each of some names exists.
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
        found = have([format_number_name(number) for number in numbers])
        low = max([low, *itertools.compress(numbers, found)])
        high = min([number for number in numbers if number > low], default=LARGEST)
    return format_number_name(max(low - count, 0)) if high < LARGEST else None
