"""Refuses column types that boosting libraries do not support: their own errors name no column, or they crash."""

from __future__ import annotations

from typing import Any

from mlapp.errors import DataError


def require_column_types(library: str, features: Any, *, category_kinds: str, takes_arrow: bool) -> None:
    """Check that a library can train on the columns of a table.

    Args:
        library: the library's name, for errors.
        category_kinds: supported types of categories, as NumPy's `dtype.kind`; `O` means texts.
        takes_arrow: whether Arrow's types are supported.

    Raises:
        DataError: names the first unsupported column, and a conversion.
    """
    if not hasattr(features, "columns") or not hasattr(features, "iloc"):
        return
    import pandas as pd

    for name, column in features.items():
        dtype = column.dtype
        if isinstance(dtype, pd.CategoricalDtype):
            kind = dtype.categories.dtype
            if kind.kind not in category_kinds or (kind.kind == "O" and not pd.api.types.is_string_dtype(kind)):
                raise DataError(
                    f"{library} does not accept categories of {kind}: column '{name}'.",
                    f"Convert them to text: table['{name}'] = table['{name}'].cat.rename_categories(str).",
                )
        elif pd.api.types.is_string_dtype(dtype) and not column.map(lambda value: not isinstance(value, str)).all():
            raise DataError(
                f"{library} does not accept text: column '{name}'.",
                f"Convert them to categories: table['{name}'] = table['{name}'].astype('category').",
            )
        elif isinstance(dtype, pd.ArrowDtype) and not takes_arrow:
            raise DataError(
                f"{library} does not accept Arrow types: column '{name}' is {dtype}.",
                f"Convert it to NumPy numbers: table['{name}'] = table['{name}'].astype('float64').",
            )
        elif dtype.kind in "mM":
            raise DataError(
                f"{library} does not accept times: column '{name}'.",
                f"Convert it to a number: table['{name}'].dt.dayofweek, or the seconds since a day.",
            )
