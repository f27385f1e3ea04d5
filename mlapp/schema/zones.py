"""Time zones: whether times, and the columns that hold them, have one."""

from __future__ import annotations

import re
from typing import Any

from mlapp.schema.fields import Field

ZONE = re.compile(r"(?:[Zz]|[+-]\d\d(?::?\d\d)?)\s*$")


def is_zoned(value: Any) -> bool:
    """Whether a time, or its text, has a zone."""
    if isinstance(value, str):
        return len(value) > 10 and ZONE.search(value, 10) is not None
    return getattr(value, "tzinfo", None) is not None


def fits_zone(field: Field, value: Any) -> bool:
    """Whether a time, or its text, fits the column without guessing its zone.

    A column without a zone accepts times without a zone. A column with a zone accepts times with any zone; it accepts
    times without a zone only if it is in UTC.
    """
    if not is_zoned_dtype(field.dtype):
        return not is_zoned(value)
    return is_utc(field.dtype) or is_zoned(value)


def is_utc(dtype: str) -> bool:
    """Whether times of that dtype are in UTC."""
    return dtype.partition(",")[2].strip().removeprefix("tz=").partition("]")[0] in ("UTC", "Etc/UTC", "Z", "+00:00")


def is_zoned_dtype(dtype: str) -> bool:
    """Whether times of that dtype have a zone, which pandas and Arrow name after a comma."""
    return "," in dtype
