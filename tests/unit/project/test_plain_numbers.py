"""Numbers in texts of others: Python's `int` and `float` accept more than the formats do."""

from __future__ import annotations

import pytest

from mlapp.plain_numbers import parse_plain_integer, parse_plain_number

STRANGE = ["", " 1", "1_0", "\u0661", "\u00b2", "+1", "-1", "nan", "inf", "Infinity", "0x1", "1e999", "9" * 5000]


@pytest.mark.parametrize("text", STRANGE)
def test_what_is_no_plain_number(text: str) -> None:
    assert parse_plain_number(text) is None
    assert parse_plain_integer(text) is None


@pytest.mark.parametrize(("text", "number"), [("0", 0.0), ("12", 12.0), ("1.5", 1.5), (b"2e3", 2000.0), ("5.", 5.0)])
def test_a_plain_number(text: str | bytes, number: float) -> None:
    assert parse_plain_number(text) == number


def test_a_plain_integer() -> None:
    assert parse_plain_integer("0012") == 12
