"""Advice for a trainer that raised, from the model and the data that it got."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from mlapp.errors import list_names
from mlapp.frameworks.sklearn_errors import find_text_columns, list_unusable_columns
from mlapp.schema.feature_containers import count_feature_rows


def advise_on_fit_error(error: BaseException, model: Any, features: Any, target: Any) -> str | None:
    """What to change, if the data shows the cause of the error; None otherwise.

    Args:
        error: raised by the user's trainer, or by the framework.
        features: the trainer's features.
        target: the trainer's target; None if the app has none.
    """
    if target is None and _learns_target(model):
        columns = f" The table has the columns: {list_names(features.columns)}." if hasattr(features, "columns") else ""
        return (
            "The model learns a target, and the app has none. Name its column, App(…, target='COLUMN'), or return it "
            f"from an @app.data_parser.{columns}"
        )
    rows, targets = count_feature_rows(features), count_feature_rows(target) if hasattr(target, "shape") else None
    if isinstance(error, ValueError) and rows is not None and targets is not None and rows != targets:
        return f"The features have {rows:,} rows and the target has {targets:,}: return equal numbers of both."
    if names := find_text_columns(features, error):
        return (
            f"The text is in {_quote_columns(names)}. Encode it with a OneHotEncoder in a ColumnTransformer, or leave "
            "it out: App(features=[…])."
        )
    if "contains NaN" in str(error) and (counts := list_unusable_columns(features)):
        return (
            f"Values are missing in {_quote_columns(list(counts))}. Put a SimpleImputer before the model, or fill them "
            "in the data_reader."
        )
    return None


def _learns_target(model: Any) -> bool:
    """Whether it is a classifier or a regressor by scikit-learn's conventions."""
    base = sys.modules.get("sklearn.base")
    with suppress(AttributeError, TypeError):  # a model of another kind
        return base is not None and bool(base.is_classifier(model) or base.is_regressor(model))
    return False


def _quote_columns(names: list[str]) -> str:
    return f"column{'' if len(names) == 1 else 's'} {list_names(map(repr, names))}"
