"""Remembers the checks of columns that scikit-learn repeats in each call of a model.

For each column of a DataFrame, scikit-learn imports from pandas and asks it what the column's type is. With 64 columns,
that is a third of the time in which a linear model predicts a row.
"""

from __future__ import annotations

import sys
from functools import cache, wraps
from typing import Any

CHECKS = ("_pandas_dtype_needs_early_conversion", "_is_pandas_string_dtype")
"""Functions of `sklearn.utils.validation` whose results depend on a column's type alone."""


def remember_column_checks() -> None:
    """Remember their results for NumPy's types. Does nothing if scikit-learn is not loaded, or has no such function."""
    validation = sys.modules.get("sklearn.utils.validation")
    for name in CHECKS:
        check = getattr(validation, name, None)
        if check is not None and not hasattr(check, "__wrapped__"):
            setattr(validation, name, _remember_check(check))


def _remember_check(check: Any) -> Any:
    import numpy as np

    remembered = cache(check)

    @wraps(check)
    def check_column(dtype: Any) -> Any:
        return remembered(dtype) if isinstance(dtype, np.dtype) else check(dtype)

    return check_column
