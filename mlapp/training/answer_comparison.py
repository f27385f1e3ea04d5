"""Compares predictions, and tolerates rounding errors from a different order of summation."""

from __future__ import annotations

import math
from typing import Any

from mlapp.schema.dtypes import is_missing_value

RELATIVE = 1e-4
"""Relative tolerance: 32-bit models sum one row in a different order than many rows."""
ABSOLUTE = 1e-6


def list_answer_rows(values: Any) -> list[Any] | None:
    """Predictions or features as a list of rows; None for values without comparable rows."""
    if isinstance(values, (list, tuple)):
        return list(values)
    if isinstance(values, dict):
        parts = [list_answer_rows(part) for part in values.values()]
        return None if None in parts else list(zip(*parts, strict=True))
    if hasattr(values, "columns") and hasattr(values, "itertuples"):
        return list(values.itertuples(index=False, name=None))
    if hasattr(values, "toarray"):  # a sparse matrix
        values = values.toarray()
    if hasattr(values, "tolist") and getattr(values, "ndim", 1) != 0:
        rows = values.tolist()
        return rows if isinstance(rows, list) else None
    return None


def is_close_answer(left: Any, right: Any, absolute: float = ABSOLUTE) -> bool:
    """Whether two entries are the same: numbers up to rounding, others exactly. Missing values are equal."""
    if is_missing_value(left) or is_missing_value(right):
        return is_missing_value(left) and is_missing_value(right)
    if isinstance(left, bool) or isinstance(right, bool):
        return bool(left == right)
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left == right or math.isclose(left, right, rel_tol=RELATIVE, abs_tol=absolute)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(
            is_close_answer(a, b, absolute) for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            is_close_answer(value, right[key], absolute) for key, value in left.items()
        )
    if hasattr(left, "tolist") and hasattr(right, "tolist"):
        return is_close_answer(left.tolist(), right.tolist(), absolute)
    if hasattr(left, "item") and hasattr(right, "item"):
        return is_close_answer(left.item(), right.item(), absolute)
    if "__eq__" not in {name for kind in type(left).__mro__[:-1] for name in vars(kind)}:  # nothing to compare with
        return type(left) is type(right)
    try:
        return bool(left == right)
    except (TypeError, ValueError):
        return True
