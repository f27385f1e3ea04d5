"""Parses numbers in text from outside: headers, options and file names.

Python's `int` and `float` also accept underscores, spaces, digits of all scripts, `inf` and `nan`.
"""

from __future__ import annotations

import re

NUMBER = re.compile(r"[0-9]{1,300}(\.[0-9]{0,300})?([eE][+-]?[0-9]{1,3})?")
MAX_INTEGER_DIGITS = 20
"""Maximum digits of an integer: enough for 64 bits. Python's `int` raises ValueError beyond some thousand."""


def parse_plain_number(text: str | bytes) -> float | None:
    """A number such as `1.5` or `2e3`; None for anything else, also a negative or an infinite one."""
    decoded = text.decode("latin-1") if isinstance(text, bytes) else text
    number = float(decoded) if NUMBER.fullmatch(decoded) else None
    return None if number == float("inf") else number


def is_plain_integer(text: str) -> bool:
    """Whether a text is one or more of the digits 0 to 9, of any length."""
    return text.isascii() and text.isdecimal()


def parse_plain_integer(text: str) -> int | None:
    """A number such as `12`; None for anything else, also for more than `MAX_INTEGER_DIGITS` digits."""
    return int(text) if is_plain_integer(text) and len(text) <= MAX_INTEGER_DIGITS else None
