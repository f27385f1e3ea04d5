"""Numbers in texts of others: headers, options and names of files. Python's `int` and `float` accept more than these
formats do: underscores, spaces, digits of all scripts, `inf` and `nan`.
"""

from __future__ import annotations

import re

NUMBER = re.compile(r"[0-9]{1,300}(\.[0-9]{0,300})?([eE][+-]?[0-9]{1,3})?")
LONGEST_INTEGER = 20
"""Digits of a number. Python's `int` raises ValueError beyond some thousand."""


def parse_plain_number(text: str | bytes) -> float | None:
    """A number such as `1.5` or `2e3`; None for anything else, also a negative or an infinite one."""
    plain = text.decode("latin-1") if isinstance(text, bytes) else text
    found = float(plain) if NUMBER.fullmatch(plain) else None
    return None if found == float("inf") else found


def is_plain_integer(text: str) -> bool:
    """Whether a text has only the digits 0 to 9."""
    return text.isascii() and text.isdecimal()


def parse_plain_integer(text: str) -> int | None:
    """A number such as `12`; None for anything else."""
    return int(text) if is_plain_integer(text) and len(text) <= LONGEST_INTEGER else None
