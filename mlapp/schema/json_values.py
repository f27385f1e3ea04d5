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
        plain = value.tolist()
        return float(plain) if type(plain) is type(value) else to_json_value(plain)  # NumPy's long float returns itself
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    text = write_text_form(value)
    return str(value) if text is None else text


def is_same_json_value(first: Any, second: Any) -> bool:
    """Whether two plain values have the same type and are equal. NumPy's scalars count as Python's."""
    first, second = _to_comparable_json_value(first), _to_comparable_json_value(second)
    if isinstance(first, str) and isinstance(second, str):
        return str(first) == str(second)
    if type(first) is not type(second):
        return False
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(is_same_json_value(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(
            is_same_json_value(value, second[key]) for key, value in first.items()
        )
    if hasattr(first, "tolist"):  # an array or a tensor
        return is_same_json_value(first.tolist(), second.tolist())
    return first is second or first != first or bool(first == second)


def _to_comparable_json_value(value: Any) -> Any:
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0 else value
