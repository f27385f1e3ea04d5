"""Explains why scikit-learn refuses a table: which column or target, and what to do."""

from __future__ import annotations

import ast
import re
from typing import Any

from mlapp.errors import DataError

NO_NUMBER = "could not convert string to float"
MOSTLY = 0.5
"""Share of the values of a column of texts from which it looks like a column of numbers."""


def explain_mixed_sklearn_targets(model: Any, target: Any) -> DataError | None:
    """The error for several targets if only some of them are numbers, as scikit-learn converts them to one array."""
    types = {} if getattr(target, "ndim", 1) < 2 else dict(getattr(target, "dtypes", {}))
    is_number = {str(name): dtype.kind in "biuf" for name, dtype in types.items()}
    if len(set(is_number.values())) < 2:
        return None
    texts = [name for name in is_number if not is_number[name]]
    return DataError(
        f"The targets have different types, which a {type(model).__name__} does not accept: {', '.join(texts)} "
        f"{'is' if len(texts) == 1 else 'are'} not numeric, {', '.join(set(is_number) - set(texts))} "
        f"{'is' if len(is_number) - len(texts) == 1 else 'are'}.",
        "Encode them all as numbers in the data_reader, "
        f"table['{texts[0]}'] = table['{texts[0]}'].astype('category').cat.codes; or train one app for each target.",
    )


def explain_sklearn_column_error(model: Any, features: Any, error: Exception) -> DataError | None:
    """An error with the column's name, if scikit-learn's error is about texts, missing or infinite values."""
    message = next(iter(str(error).splitlines()), "")
    if not hasattr(features, "isna"):
        return None
    if message.startswith(NO_NUMBER):
        # An earlier step of a pipeline can encode other columns with texts: only the value in the message shows which
        # column the model cannot use.
        names = find_text_columns(features, error)
        if len(names) != 1:
            return None
        return _make_sklearn_text_error(model, names[0], features[names[0]].dropna().astype(str))
    if "NAType" in message or "boolean value of NA is ambiguous" in message:
        return _missing_sklearn_text_error(model, features)
    if not message.startswith("Input X contains"):
        return None
    counts = list_unusable_columns(features)
    if len(counts) != 1:
        return None
    [(name, count)] = counts.items()
    return DataError(
        f"Column '{name}' of the features has {count:,} missing or infinite values, which a {type(model).__name__} "
        "does not accept.",
        "Fill or drop them in the data_reader; put a SimpleImputer before the model; or choose HistGradientBoosting….",
    )


def find_text_columns(features: Any, error: BaseException) -> list[str]:
    """The columns that contain the text which a framework could not convert to a number.

    Returns:
        No columns if the error is about anything else, or the text comes from no column unchanged.
    """
    match = re.match(rf"{NO_NUMBER}: (?:np\.str_\()?('.*'|\".*\")\)?$", str(error), re.DOTALL)
    if match is None or not hasattr(features, "isna") or not hasattr(features, "columns"):  # such as polars
        return []
    try:
        text = ast.literal_eval(match[1])
    except (ValueError, SyntaxError):
        return []
    texts = [at for at, dtype in enumerate(features.dtypes) if dtype.kind not in "biufcmM"]
    return [str(features.columns[at]) for at in texts if (features.iloc[:, at].astype(str) == text).any()]


def list_unusable_columns(features: Any) -> dict[str, int]:
    """The number of missing or infinite values of each column that has any; empty for features without columns."""
    import numpy as np

    if not hasattr(features, "isna") or not hasattr(features, "columns"):
        return {}
    counts = (features.isna() | features.isin([np.inf, -np.inf])).sum()
    return {str(name): int(count) for name, count in counts.items() if count}


def _make_sklearn_text_error(model: Any, name: str, values: Any) -> DataError:
    """The error for a column of texts; for one with mostly numbers, also how to read it as numbers."""
    import pandas as pd

    is_number = pd.to_numeric(values, errors="coerce").notna()
    first = next(iter(values[~is_number]), None)
    example = "" if first is None else f" such as {first[:40]!r}"
    todo = "Put a ColumnTransformer with a OneHotEncoder before the model, or leave it out: App(features=[…])."
    if is_number.mean() >= MOSTLY:
        option = ""
        if first is not None:
            has_thousands = re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", first)
            option = ", thousands=','" if has_thousands else f", na_values=[{first[:40]!r}]"
        todo = (
            f"Read it as numbers: pd.read_csv(…, dtype={{{name!r}: 'float64'}}{option}). If its values are codes, put "
            "a ColumnTransformer with a OneHotEncoder before the model."
        )
    return DataError(
        f"Column '{name}' of the features contains strings{example}, which a {type(model).__name__} does not accept.",
        todo,
    )


def _missing_sklearn_text_error(model: Any, features: Any) -> DataError | None:
    """The error for a column with pandas' NA, which scikit-learn's encoders cannot sort."""
    import pandas as pd

    for name, column in features.items():
        if any(value is pd.NA for value in column[column.isna()].astype(object)):
            return DataError(
                f"Column '{name}' of the features ({column.dtype}) has missing values as pd.NA, which a "
                f"{type(model).__name__} does not accept.",
                f"Fill them in the data_reader, table['{name}'].fillna('missing'); or make them None: "
                f"table['{name}'].astype(object).where(table['{name}'].notna(), None).",
            )
    return None
