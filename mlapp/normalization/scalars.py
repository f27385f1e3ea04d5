"""Converts scalars of Python, NumPy, pandas and Arrow to JSON values."""

from __future__ import annotations

import base64
import datetime
import enum
import ipaddress
import numbers
import uuid
from decimal import Decimal
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from mlapp.schema.durations import count_nanoseconds, format_duration

if TYPE_CHECKING:
    import numpy as np

JSON_TYPES = frozenset((float, int, str, bool, type(None)))


class NoJsonError(TypeError):
    """A value that JSON cannot represent."""


def normalize_scalar(value: Any) -> Any:
    """A scalar as JSON represents it.

    Returns:
        `value` itself if it is compound; the compound value that an enumeration's member or an Arrow scalar holds.

    Raises:
        NoJsonError: JSON cannot represent it.
    """
    kind = type(value)
    if kind in JSON_TYPES:
        return value
    if kind.__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, enum.Enum):
        return normalize_scalar(value.value)
    library = kind.__module__.partition(".")[0]
    if library == "numpy" and hasattr(value, "dtype") and not value.ndim:
        return _unwrap_numpy_scalar(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return format_duration(count_nanoseconds(value))
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (Decimal, numbers.Real)):
        return _normalize_number(value)
    if isinstance(value, (uuid.UUID, PurePath, ipaddress._BaseAddress)):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if library == "pandas" and kind.__name__ in ("Period", "Interval"):
        return str(value)
    if library == "pyarrow" and hasattr(value, "as_py"):
        return normalize_scalar(value.as_py())
    return value


def _normalize_number(value: Any) -> float | int:
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value)


def _unwrap_numpy_scalar(value: Any) -> Any:
    if value.dtype.kind in "cV":
        raise NoJsonError(type(value).__name__)
    if value.dtype.kind in "mM":
        return normalize_scalar(list_time_scalars(value.reshape(1))[0])
    if value.dtype.kind == "f":
        return float(value)
    return normalize_scalar(value.item())


def list_time_scalars(array: np.ndarray[Any, Any]) -> Any:
    """An array of times or durations as objects with an ISO text: dates, Timestamps, Timedeltas."""
    import numpy as np
    import pandas as pd

    if array.dtype == "M8[D]":
        return array.astype(object)
    flat = pd.Series(array.ravel()).astype(object).to_numpy()
    return np.reshape(flat, array.shape)


def format_column_name(name: Any) -> str:
    """The name of a column, or the key of a record, as text. Levels of a MultiIndex are joined by dots.

    Raises:
        NoJsonError: it is a function or a class.
    """
    if callable(name):
        raise NoJsonError(type(name).__name__)
    return ".".join(map(str, name)) if isinstance(name, tuple) else str(normalize_scalar(name))
