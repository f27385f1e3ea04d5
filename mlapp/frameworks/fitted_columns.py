"""Explains a failed prediction: the model was fitted on columns that differ from those of the request."""

from __future__ import annotations

from typing import Any

from mlapp.errors import ModelError

MAX_NAMES = 8
"""Maximum number of column names in an error."""


def explain_other_columns(estimator: Any, features: Any, fitted_by: str) -> ModelError | None:
    """The error for a different number of columns than in fitting.

    Args:
        fitted_by: title of the function that fitted the model.

    Returns:
        None if the number is equal, or unknown because the model lacks scikit-learn's attributes.
    """
    count: Any = getattr(estimator, "n_features_in_", None)
    shape: Any = getattr(features, "shape", ())
    if not isinstance(count, int) or len(shape) != 2 or shape[1] == count:
        return None
    fitted_names = _list_column_names(getattr(estimator, "feature_names_in_", ()))
    given_names = _list_column_names(getattr(features, "columns", ()))
    return ModelError(
        f"{fitted_by} fitted the model on {count} column{'' if count == 1 else 's'}{fitted_names}, but it gets "
        f"{shape[1]}"
        f"{given_names} to predict.",
        "Select the columns in an @app.feature_transformer, which training and serving run, or in App(features=[…]).",
    )


def _list_column_names(names: Any) -> str:
    texts = [str(name) for name in names]
    ellipsis = ", …" if len(texts) > MAX_NAMES else ""
    return f" ({', '.join(texts[:MAX_NAMES])}{ellipsis})" if texts else ""
