"""Checks the values of decorators' options, so that an error names the decorator with the mistake."""

from __future__ import annotations

import math
from typing import Any

from mlapp.errors import DeclarationError


def is_whole_number(value: Any, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def is_finite_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_option(is_valid: bool, option: str, value: Any, advice: str) -> None:
    """Raise an error if the value of a decorator's option is not valid.

    Args:
        is_valid: the result of the check.
        option: the option as the user writes it, such as `@app.predictor(wait=…)`.
        advice: what to give instead, such as "a number of rows, 1 or more".

    Raises:
        DeclarationError: the value is not valid.
    """
    if not is_valid:
        raise DeclarationError(f"{option} is {value!r}, which is not valid.", f"Give {advice}.")
