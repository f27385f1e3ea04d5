"""Durations as ISO 8601 texts, exact to a nanosecond.

pandas' own parser is not used: it reads `P1M` as one minute and `5` as five nanoseconds, and its texts of negative
durations, such as `P-1DT23H0M0S`, are not ISO 8601.
"""

from __future__ import annotations

import re
from datetime import timedelta

SECOND = 10**9
DAY = 86_400 * SECOND
UNITS = {"s": SECOND, "ms": 10**6, "us": 10**3, "ns": 1}
"""Nanoseconds of each unit of a dtype."""
NUMBER = r"[+-]?\d{1,12}"
FRACTION = r"(?:[.,](\d{1,9}))?"
ISO = re.compile(
    rf"([+-]?)P(?=[\dT+-])(?:({NUMBER})W)?(?:({NUMBER})D)?"
    rf"(?:T(?=[\d+-])(?:({NUMBER})H)?(?:({NUMBER})M)?(?:({NUMBER}){FRACTION}S)?)?"
)
PANDAS = re.compile(rf"(?:({NUMBER}) days?)?(?:(?:^| )([+-]?)(\d{{1,2}}):([0-5]\d):([0-5]\d){FRACTION})?")


def format_duration(nanoseconds: int) -> str:
    """The ISO 8601 text, in days and seconds: `P1DT7200S`, `-PT0.5S`."""
    days, rest = divmod(abs(nanoseconds), DAY)
    seconds, fraction = divmod(rest, SECOND)
    decimals = f".{fraction:09d}".rstrip("0") if fraction else ""
    sign = "-" if nanoseconds < 0 else ""
    day = f"{days}D" if days else ""
    return f"{sign}P{day}" + (f"T{seconds}{decimals}S" if rest or not days else "")


def parse_duration(text: str) -> int:
    """The nanoseconds of an ISO 8601 text of weeks, days, hours, minutes and seconds, or of a text from pandas:
    `1 days 02:00:00`, `P-1DT23H0M0S`.

    Raises:
        ValueError: it is neither. Months and years have no fixed length.
    """
    if (match := ISO.fullmatch(text)) is not None:
        sign, *numbers, fraction = match.groups()
        weeks, days, hours, minutes, seconds = (int(number or 0) for number in numbers)
        whole = (7 * weeks + days) * DAY + (hours * 3600 + minutes * 60 + seconds) * SECOND
        part = _parse_duration_fraction(fraction) * (-1 if (numbers[-1] or "").startswith("-") else 1)
        return -(whole + part) if sign == "-" else whole + part
    if text and (match := PANDAS.fullmatch(text)) is not None:
        day, sign, *clock, fraction = match.groups()
        hours, minutes, seconds = (int(number or 0) for number in clock)
        time = (hours * 3600 + minutes * 60 + seconds) * SECOND + _parse_duration_fraction(fraction)
        return int(day or 0) * DAY + (-time if sign == "-" else time)
    raise ValueError(f"{text!r} is not an ISO 8601 duration")


def count_nanoseconds(value: timedelta) -> int:
    """The nanoseconds of a timedelta of Python or pandas."""
    nanoseconds = getattr(value, "nanoseconds", 0)  # only pandas' type has them
    return value.days * DAY + value.seconds * SECOND + value.microseconds * 1000 + int(nanoseconds)


def _parse_duration_fraction(digits: str | None) -> int:
    return int((digits or "").ljust(9, "0"))
