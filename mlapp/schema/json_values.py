"""Converts values to JSON values: NumPy's and pandas' scalars, arrays and times, as clients send and receive them."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

from mlapp.schema.text_forms import write_text_form


def to_json_value(value: Any) -> Any:
    """`value` as a JSON value: NumPy and pandas scalars and arrays become Python's, a missing value None."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return str(value)  # NumPy's texts are a subclass of str that JSON encoders refuse
    if isinstance(value, float):
        return None if value != value else float(value)
    if isinstance(value, Decimal):
        return to_json_value(float(value))
    if isinstance(value, (list, tuple)):
        return [to_json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, (datetime.datetime, datetime.date)):
        return None if value != value else value.isoformat()
    if getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M") and not value.ndim:
        import pandas as pd

        return to_json_value(pd.Timedelta(value) if value.dtype.kind == "m" else pd.Timestamp(value))
    if hasattr(value, "tolist"):
        found = value.tolist()
        return float(found) if type(found) is type(value) else to_json_value(found)  # NumPy's long float returns itself
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    text = write_text_form(value)
    return str(value) if text is None else text


def is_same_json_value(left: Any, right: Any) -> bool:
    """Whether two plain values have the same type and are equal. NumPy's scalars count as Python's."""
    left, right = _to_comparable_json_value(left), _to_comparable_json_value(right)
    if isinstance(left, str) and isinstance(right, str):
        return str(left) == str(right)
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(is_same_json_value(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(is_same_json_value(value, right[key]) for key, value in left.items())
    if hasattr(left, "tolist"):  # an array or a tensor
        return is_same_json_value(left.tolist(), right.tolist())
    return left is right or left != left or bool(left == right)


def _to_comparable_json_value(value: Any) -> Any:
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0 else value
