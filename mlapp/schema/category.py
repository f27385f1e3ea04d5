"""Converts categories between the JSON values of clients and the dtype in training."""

from __future__ import annotations

import datetime
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from mlapp.schema.dtypes import parse_pandas_dtype
from mlapp.schema.durations import parse_duration
from mlapp.schema.fields import Field
from mlapp.schema.json_values import to_json_value
from mlapp.schema.text_forms import TEXT_FORMS, write_text_form
from mlapp.schema.time_texts import is_time_text
from mlapp.schema.zones import fits_zone, is_utc

if TYPE_CHECKING:
    import pandas as pd

INTERVAL = re.compile(r"[\[(](?P<left>\S+), (?P<right>\S+)[\])]")
PLAIN = (None, "object", "str")
"""Dtypes of categories whose values pandas converts to JSON."""
REWRITTEN = ("datetime64", "timedelta64", "time", "uuid")
"""Dtypes of categories with several texts for a value."""
MAX_DTYPES = 256
"""Number of cached dtypes."""
_dtypes: dict[int, tuple[Field, pd.CategoricalDtype]] = {}
"""Dtypes by the identity of their fields: comparing many categories would take longer than the rest of a request."""


def make_category_dtype(field: Field) -> pd.CategoricalDtype:
    """The dtype of a categorical column in training: its categories, their order and dtype."""
    cached = _dtypes.get(id(field))
    if cached is not None and cached[0] is field:
        return cached[1]
    values = field.categories or []
    dtype: pd.CategoricalDtype = _build_category_dtype(
        tuple(values), tuple(map(type, values)), field.category_dtype, field.ordered
    )
    if len(_dtypes) >= MAX_DTYPES:
        _dtypes.clear()
    _dtypes[id(field)] = field, dtype
    return dtype


@lru_cache(maxsize=256)
def _build_category_dtype(values: tuple[Any, ...], kinds: tuple[type, ...], dtype: str | None, ordered: bool) -> Any:
    """`kinds` distinguishes True from 1, which are the same key."""
    import pandas as pd

    return pd.CategoricalDtype(
        list(values) if dtype is None else _restore_categories(list(values), dtype), ordered=ordered
    )


def convert_categories_as_sent(column: pd.Series[Any], field: Field) -> pd.Series[Any]:
    """A column as a client sends it: values that JSON lacks, such as intervals and times, become their texts."""
    if field.type != "category":
        return column
    if column.dtype == "float16":  # pandas cannot look up categories by it
        column = column.astype("float32")
    if field.category_dtype in PLAIN:
        return column
    if str(column.dtype) != "str":
        column = column.astype(object).map(to_json_value)
    if not str(field.category_dtype).startswith(REWRITTEN):
        return column
    texts = set(field.categories or ())
    return column.map(lambda value: _match_category_text(value, field, texts))


def _match_category_text(value: Any, field: Field, texts: set[Any]) -> Any:
    """The category's text of a time or duration in another notation; other values unchanged."""
    import pandas as pd

    if not isinstance(value, str) or value in texts:
        return value
    dtype = str(field.category_dtype)
    try:
        if dtype.startswith("timedelta64"):
            return next((match for match in texts if parse_duration(match) == parse_duration(value)), value)
        if dtype in TEXT_FORMS:
            match = str(write_text_form(TEXT_FORMS[dtype].read(value, "object")))
            return match if match in texts else value
        if not is_time_text(value):
            return value
        time = pd.Timestamp(value)
        zone = dtype.partition(", ")[2].removesuffix("]")
        if not fits_zone(msgspec.structs.replace(field, dtype=dtype), time):
            return value
        if zone and time.tzinfo is None and is_utc(dtype):
            time = time.tz_localize("UTC")
        match = (time.tz_convert(zone) if zone else time).isoformat()
    except (ValueError, OverflowError):
        return value
    return match if match in texts else value


def is_category(field: Field, value: Any) -> bool:
    """Whether a JSON value is one of the field's categories. True is not 1."""
    is_bool = isinstance(value, bool)
    try:
        return any(value == category and isinstance(category, bool) == is_bool for category in field.categories or ())
    except ValueError:  # an array, whose comparison has no truth value
        return False


def cast_categories(column: pd.Series[Any], field: Field) -> pd.Series[Any]:
    """A column of JSON values, each a category or missing, in training's dtype."""
    import pandas as pd

    dtype = make_category_dtype(field)
    if field.category_dtype in PLAIN:
        return column.astype(dtype)
    codes = {value: code for code, value in enumerate(field.categories or [])}
    positions = [-1 if pd.isna(value) else codes[value] for value in column.tolist()]
    return pd.Series(pd.Categorical.from_codes(positions, dtype=dtype), index=column.index, name=column.name)


def _restore_categories(values: list[Any], dtype: str) -> Any:
    """The categories from their JSON values."""
    import numpy as np
    import pandas as pd

    if dtype.startswith("datetime64"):
        return pd.to_datetime(pd.Index(values, dtype=object), format="ISO8601", utc="," in dtype).astype(dtype)
    if dtype.startswith("timedelta64"):
        return pd.Index(np.array([parse_duration(value) for value in values], "m8[ns]")).astype(dtype)
    if dtype == "date":
        return pd.Index([datetime.date.fromisoformat(value) for value in values], dtype=object)
    if dtype in TEXT_FORMS:
        return pd.Index([TEXT_FORMS[dtype].read(value, "object") for value in values], dtype=object)
    if dtype.startswith("period["):
        return pd.PeriodIndex(values, dtype=dtype)
    if dtype.startswith("interval["):
        return _parse_interval_categories(values, dtype)
    return pd.Index(values, dtype=parse_pandas_dtype(dtype))


def _parse_interval_categories(values: list[str], dtype: str) -> Any:
    """Intervals from their texts, such as `(0.5, 1.0]`."""
    import pandas as pd

    subtype, closed = dtype.removeprefix("interval[").removesuffix("]").rsplit(", ", 1)
    ends = [match.groups() for value in values if (match := INTERVAL.fullmatch(value)) is not None]
    if len(ends) < len(values) or not subtype.startswith(("int", "uint", "float")):
        return pd.Index(values, dtype=object)
    number: Any = float if subtype.startswith("float") else int
    left, right = ([number(end[side]) for end in ends] for side in (0, 1))
    make: Any = pd.IntervalIndex.from_arrays
    return make(left, right, closed=closed, dtype=dtype)
