"""Values that JSON lacks, and their texts: durations, times of day, periods, bytes and UUIDs.

One table defines for each type its columns, its text, and how the text is parsed. The schema's inference,
its checks, CSV, OpenAPI and the categories all use it.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlapp.schema.dtypes import is_missing_value, parse_pandas_dtype
from mlapp.schema.durations import UNITS, count_nanoseconds, format_duration, parse_duration
from mlapp.schema.fields import Field, FieldType

if TYPE_CHECKING:
    import pandas as pd

CLOCK = re.compile(r"\d\d:\d\d(:\d\d(\.\d{1,6})?)?")
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}")
MAX_PERIOD_LENGTH = 64
"""Characters of a period's text."""
UNIT = re.compile(r"\[(n?s|ms|us)\]")


@dataclass(frozen=True)
class TextForm:
    """The text form of one type.

    Attributes:
        dtypes: prefixes of its dtypes, from `str(dtype)`.
        kind: the type of the values in a column of objects, `module.name`; empty if such columns are not supported.
        wanted: description of a value, for errors.
        placeholder: an example if no value can be stored.
        json_schema: of the texts.
        read: converts a text, or a Python or pandas value, to the given dtype. Raises ValueError for a text of another
            form and for a value that the dtype cannot hold exactly.
        is_ordered: whether the values have an order, and so a range.
    """

    dtypes: tuple[str, ...]
    kind: str
    wanted: str
    placeholder: str
    json_schema: dict[str, Any]
    read: Callable[[Any, str], Any]
    is_ordered: bool = False


def find_text_form(column: pd.Series[Any]) -> FieldType | None:
    """The type of a column by its dtype alone; None for other columns."""
    dtype = str(column.dtype)
    return next((name for name, form in TEXT_FORMS.items() if dtype.startswith(form.dtypes)), None)


def find_text_form_of_values(kinds: set[type]) -> FieldType | None:
    """The type of a column of objects of one class that JSON lacks."""
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in kinds}
    return next((name for name, form in TEXT_FORMS.items() if names == {form.kind}), None)


def read_text_forms(column: pd.Series[Any], field: Field, marker: Any) -> pd.Series[Any]:
    """A column of texts or values in the field's dtype.

    Args:
        marker: the missing value of a column of objects.

    Raises:
        ValueError: a text has another form.
    """
    import pandas as pd

    if field.dtype != "object" and str(column.dtype) == field.dtype:
        return column
    convert = TEXT_FORMS[field.type].read
    is_object = field.dtype == "object"
    missing = marker if is_object else None
    values = [missing if is_missing_value(value) else convert(value, field.dtype) for value in column.tolist()]
    if is_object:
        return pd.Series(values, index=column.index, dtype=object)
    return pd.Series(pd.array(values, dtype=parse_pandas_dtype(field.dtype)), index=column.index)


def accepts_text_form(field: Field, value: Any) -> bool:
    """Whether a value that is not missing, or its text, is valid in the column."""
    try:
        TEXT_FORMS[field.type].read(value, field.dtype)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def write_text_form(value: Any) -> str | None:
    """The text of a value of one of the types; None for other values."""
    if isinstance(value, datetime.timedelta):
        return format_duration(count_nanoseconds(value))
    if isinstance(value, datetime.time):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    is_text = isinstance(value, uuid.UUID) or type(value).__name__ == "Period"
    return str(value) if is_text else None


def _read_duration_text(value: Any, dtype: str) -> Any:
    import numpy as np

    match = UNIT.search(dtype)
    unit: Any = match[1] if match else "ns"
    if not isinstance(value, (str, datetime.timedelta)):
        raise TypeError(value)
    nanoseconds = parse_duration(value) if isinstance(value, str) else count_nanoseconds(value)
    count, rest = divmod(nanoseconds, UNITS[unit])
    if rest or not -(2**63) < count < 2**63:
        raise ValueError(value)
    return np.timedelta64(count, unit)


def _read_time_text(value: Any, dtype: str) -> datetime.time:
    if isinstance(value, str):
        if not CLOCK.fullmatch(value):
            raise ValueError(value)
        value = datetime.time.fromisoformat(value)
    if not isinstance(value, datetime.time) or value.tzinfo is not None or value.fold:
        raise TypeError(value)
    match = UNIT.search(dtype)
    if match and value.microsecond * 1000 % UNITS[match[1]]:
        raise ValueError(value)
    return value


def _read_period_text_form(value: Any, dtype: str) -> Any:
    import pandas as pd

    if not isinstance(value, (str, pd.Period)):
        raise TypeError(value)
    target: Any = pd.PeriodDtype(dtype.removeprefix("period[").removesuffix("]"))
    period: Any = value
    if isinstance(value, str) and len(value) < MAX_PERIOD_LENGTH:
        try:
            period = pd.Period(value, freq=target.freq)
        except AttributeError as error:  # raised by pandas for a time of day with nanoseconds
            raise ValueError(value) from error
    # A date is no month, because it would lose its day.
    if (
        not isinstance(period, pd.Period)
        or period.freq != target.freq
        or (value is not period and str(period) != value)
    ):
        raise ValueError(value)
    return period


def _read_bytes_text_form(value: Any, dtype: str) -> bytes:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(value) from error
    if not isinstance(value, bytes):
        raise TypeError(value)
    return value


def _read_uuid_text(value: Any, dtype: str) -> uuid.UUID:
    if isinstance(value, uuid.UUID):
        return value
    if not UUID.fullmatch(value):
        raise ValueError(value)
    return uuid.UUID(value)


TEXT_FORMS: dict[FieldType, TextForm] = {
    "duration": TextForm(
        dtypes=("timedelta64[", "duration["),
        kind="",
        wanted="a duration, such as PT90S or P1DT2H",
        placeholder="PT0S",
        json_schema={"type": "string", "format": "duration"},
        read=_read_duration_text,
        is_ordered=True,
    ),
    "time": TextForm(
        dtypes=("time32[", "time64[us]"),  # Python's times, which Arrow's become, have no nanoseconds
        kind="datetime.time",
        wanted="a time of day without a time zone, such as 12:30:00",
        placeholder="00:00:00",
        json_schema={"type": "string", "format": "time-local"},
        read=_read_time_text,
        is_ordered=True,
    ),
    "period": TextForm(
        dtypes=("period[",),
        kind="",
        wanted="a period in pandas' format, such as 2026-01 for a month",
        placeholder="2000-01",
        json_schema={"type": "string"},
        read=_read_period_text_form,
        is_ordered=True,
    ),
    "bytes": TextForm(
        dtypes=("binary[", "large_binary["),
        kind="builtins.bytes",
        wanted="a string in base64",
        placeholder="",
        json_schema={"type": "string", "contentEncoding": "base64"},
        read=_read_bytes_text_form,
    ),
    "uuid": TextForm(
        dtypes=(),
        kind="uuid.UUID",
        wanted="a UUID",
        placeholder="00000000-0000-0000-0000-000000000000",
        json_schema={"type": "string", "format": "uuid"},
        read=_read_uuid_text,
    ),
}
