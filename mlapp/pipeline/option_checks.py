"""Checks of the values that decorators take, so that a mistake is named where it is written."""

from __future__ import annotations

import math
from typing import Any

from mlapp.errors import DeclarationError


def is_whole_number(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_finite_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_option(is_valid: bool, option: str, value: Any, wanted: str) -> None:
    """Refuse a value.

    Args:
        option: where the user writes it, such as `@app.predictor(wait=…)`.

    Raises:
        DeclarationError: it is not valid.
    """
    if not is_valid:
        raise DeclarationError(f"{option} is {value!r}, which is not valid.", f"Give {wanted}.")
