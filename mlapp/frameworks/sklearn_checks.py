"""Shortens the checks of a model's input that scikit-learn repeats in each call.

scikit-learn checks whether the input is a table of some library, and the type of each column. For a DataFrame of 32
rows and 64 columns of numbers, these checks take 85 % of the time of a linear model's call; for an array of one row,
nearly half.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any

NEWEST = (1, 9)
"""The newest minor version of scikit-learn with which the replacements were compared."""
NUMBERS = "iuf"
"""The `dtype.kind` of NumPy's number types."""


def shorten_input_checks() -> None:
    """Replace functions of `sklearn.utils.validation` by those in `REPLACEMENTS`.

    Does nothing if scikit-learn is not loaded, is newer than `NEWEST`, or has no such function.
    """
    validation = sys.modules.get("sklearn.utils.validation")
    if validation is None or read_sklearn_version() > NEWEST:
        return
    for name, shorten in REPLACEMENTS.items():
        check = getattr(validation, name, None)
        if check is not None and not hasattr(check, "__wrapped__"):
            setattr(validation, name, shorten(check))


def read_sklearn_version() -> tuple[int, int]:
    """The major and minor version of the loaded scikit-learn."""
    major, minor = re.findall(r"\d+", sys.modules["sklearn"].__version__)[:2]
    return int(major), int(minor)


def _cache_sklearn_column_check(check: Any) -> Any:
    """Cache the result for each NumPy type, because it depends only on the type."""
    import numpy as np

    cached_check = cache(check)

    @wraps(check)
    def check_column(dtype: Any) -> Any:
        return cached_check(dtype) if isinstance(dtype, np.dtype) else check(dtype)

    return check_column


def _skip_sklearn_array_check(check: Any, result: Any) -> Any:
    """Return the known result for NumPy arrays without calling the function."""
    from numpy import ndarray

    @wraps(check)
    def check_input(values: Any) -> Any:
        return result if type(values) is ndarray else check(values)

    return check_input


def _replace_sklearn_name_check(get_names: Any) -> Any:
    """Read the names of a DataFrame from pandas. An array has none."""
    import numpy as np

    @wraps(get_names)
    def get_feature_names(values: Any) -> Any:
        if type(values) is np.ndarray:
            return None
        columns = _find_unique_sklearn_columns(values)
        names = [] if columns is None else columns.tolist()
        return np.asarray(names, dtype=object) if set(map(type, names)) == {str} else get_names(values)

    return get_feature_names


def _replace_sklearn_array_check(check: Any) -> Any:
    """Convert a DataFrame of numbers to an array before the check, as the check itself does more slowly."""

    @wraps(check)
    def check_array(array: Any, *arguments: Any, **options: Any) -> Any:
        # For a writable table without a copy, scikit-learn needs the memory of pandas.
        if options.get("copy") or not options.get("force_writeable"):
            numbers = _read_sklearn_table_numbers(array)
            array = array if numbers is None else numbers
        return check(array, *arguments, **options)

    # pickle finds a function by its module and name. `sklearn.utils` still exports the original.
    check.__module__ = "sklearn.utils"
    return check_array


def _read_sklearn_table_numbers(table: Any) -> Any:
    """The values of a DataFrame with NumPy numbers, as `numpy.asarray` returns them; None for anything else."""
    import numpy as np

    if _find_unique_sklearn_columns(table) is None:
        return None
    try:
        dtypes = [block.dtype for block in table._mgr.blocks]
    except AttributeError:  # a pandas that stores columns in another way
        return None
    if not dtypes or not all(isinstance(dtype, np.dtype) and dtype.kind in NUMBERS for dtype in dtypes):
        return None
    cells = table.values
    return cells if cells.dtype == np.result_type(*dtypes) else None


def _find_unique_sklearn_columns(table: Any) -> Any:
    """The columns of a DataFrame, if they have one level and unique names; None for anything else."""
    pandas = sys.modules.get("pandas")
    if type(table) is not getattr(pandas, "DataFrame", None):
        return None
    columns = table.columns
    return columns if type(columns) is pandas.Index and columns.is_unique else None  # type: ignore[union-attr]


REPLACEMENTS: dict[str, Callable[[Any], Any]] = {
    "_pandas_dtype_needs_early_conversion": _cache_sklearn_column_check,
    "_is_pandas_string_dtype": _cache_sklearn_column_check,
    "_nw_into_df_or_series": partial(_skip_sklearn_array_check, result=False),
    "_get_feature_names": _replace_sklearn_name_check,
    "check_array": _replace_sklearn_array_check,
}
"""Function of `sklearn.utils.validation` → function that makes its replacement."""
