"""Shortens the checks of a model's input that scikit-learn repeats in each call.

For each column of a DataFrame, scikit-learn imports from pandas and asks it what the column's type is. With 64 columns,
that is a third of the time in which a linear model predicts a row. Of a NumPy array, it asks several times whether it
is a table of some library. For one row, that is nearly half of the time.
"""

from __future__ import annotations

import re
import sys
from functools import cache, wraps
from typing import Any

COLUMN_CHECKS = ("_pandas_dtype_needs_early_conversion", "_is_pandas_string_dtype")
"""Functions of `sklearn.utils.validation` whose results depend on a column's type alone."""
ARRAY_RESULTS = {"_nw_into_df_or_series": False, "_get_feature_names": None}
"""Functions of `sklearn.utils.validation`, and what they return for every NumPy array."""


NEWEST = (1, 9)
"""The newest minor version of scikit-learn whose functions were compared with the replaced ones."""


def shorten_input_checks() -> None:
    """Replace them. Does nothing if scikit-learn is not loaded, is newer than `NEWEST`, or has no such function."""
    validation = sys.modules.get("sklearn.utils.validation")
    if validation is None or read_sklearn_version() > NEWEST:
        return
    for name in (*COLUMN_CHECKS, *ARRAY_RESULTS):
        check = getattr(validation, name, None)
        if check is None or hasattr(check, "__wrapped__"):
            continue
        if name in ARRAY_RESULTS:
            setattr(validation, name, _skip_arrays(check, ARRAY_RESULTS[name]))
        else:
            setattr(validation, name, _remember_check(check))


def read_sklearn_version() -> tuple[int, int]:
    """The major and minor version of the loaded scikit-learn."""
    major, minor = re.findall(r"\d+", sys.modules["sklearn"].__version__)[:2]
    return int(major), int(minor)


def _remember_check(check: Any) -> Any:
    import numpy as np

    remembered = cache(check)

    @wraps(check)
    def check_column(dtype: Any) -> Any:
        return remembered(dtype) if isinstance(dtype, np.dtype) else check(dtype)

    return check_column


def _skip_arrays(check: Any, result: Any) -> Any:
    from numpy import ndarray

    @wraps(check)
    def check_input(values: Any) -> Any:
        return result if type(values) is ndarray else check(values)

    return check_input
