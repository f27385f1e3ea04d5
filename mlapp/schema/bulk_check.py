"""Checks the values of a column in bulk, because checking a million values one by one takes seconds."""

from __future__ import annotations

from typing import Any

from mlapp.schema.fields import Field, find_float_field_bound, find_integer_field_bounds
from mlapp.schema.time_texts import can_hold_time_series, is_time_text
from mlapp.schema.zones import fits_zone

NONE = type(None)


def accepts_values_in_bulk(field: Field, values: list[Any]) -> bool:
    """Whether a column certainly accepts all the JSON values. If False, each value must be checked.

    Args:
        field: of any type except `any`.
    """
    import numpy as np
    import pandas as pd

    kinds = set(map(type, values))
    if NONE in kinds:
        if not field.nullable:
            return False
        kinds.discard(NONE)
        values = [value for value in values if value is not None]
    try:
        match field.type:
            case "boolean":
                return kinds <= {bool}
            case "string":
                return kinds <= {str}
            case "category":
                categories = field.categories or []
                is_clear = bool not in kinds and bool not in map(type, categories)  # True is 1 to a set
                return is_clear and kinds <= {str, int, float} and set(values) <= set(categories)
            case "number":
                size = np.abs(np.array(values, float)) if kinds <= {int, float} else np.array(np.inf)
                return bool((size <= find_float_field_bound(field.dtype)).all())
            case "integer" if kinds <= {int}:
                low, end = find_integer_field_bounds(field.dtype)
                return not values or (low <= min(values) and max(values) < end)
            case "datetime" if kinds <= {str} and all(
                is_time_text(value) and fits_zone(field, value) for value in values
            ):
                times = pd.to_datetime(pd.Series(values, dtype=object), format="ISO8601", utc=True)
                return bool(times.notna().all()) and can_hold_time_series(field, times)
    except (TypeError, ValueError, OverflowError):  # a value's type or size requires a check of each value
        pass
    return False
