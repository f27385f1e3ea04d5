"""Explains a prediction that fails because the model was fitted on other columns than it gets."""

from __future__ import annotations

from typing import Any

from mlapp.errors import ModelError

SHOWN = 8
"""Names of columns in an error."""


def explain_other_columns(estimator: Any, features: Any, fitted_by: str) -> ModelError | None:
    """The error of a model that has scikit-learn's attributes and another number of columns; None for other models.

    Args:
        fitted_by: title of the function that fitted it.
    """
    count: Any = getattr(estimator, "n_features_in_", None)
    shape: Any = getattr(features, "shape", ())
    if not isinstance(count, int) or len(shape) != 2 or shape[1] == count:
        return None
    fitted = _list_column_names(getattr(estimator, "feature_names_in_", ()))
    given = _list_column_names(getattr(features, "columns", ()))
    return ModelError(
        f"{fitted_by} fitted the model on {count} column{'' if count == 1 else 's'}{fitted}, but it gets {shape[1]}"
        f"{given} to predict.",
        "Select the columns in an @app.feature_transformer, which training and serving run, or in App(features=[…]).",
    )


def _list_column_names(names: Any) -> str:
    listed = [str(name) for name in names]
    more = ", …" if len(listed) > SHOWN else ""
    return f" ({', '.join(listed[:SHOWN])}{more})" if listed else ""
