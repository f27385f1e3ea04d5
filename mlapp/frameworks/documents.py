"""scikit-learn models that start with a vectorizer: they take one text per row instead of a table."""

from __future__ import annotations

from typing import Any


def select_text_documents(model: Any, features: Any) -> Any:
    """The only column of `features` if the model takes a list of texts; otherwise the features unchanged."""
    is_one_column = hasattr(features, "columns") and len(features.columns) == 1
    return features.iloc[:, 0] if is_one_column and takes_text_documents(model) else features


def takes_text_documents(model: Any) -> bool:
    """Whether a model, or the first step of a pipeline or search, is a text vectorizer of scikit-learn."""
    steps = getattr(model, "steps", None) or getattr(model, "transformer_list", None)
    if steps:
        return takes_text_documents(steps[0][1])
    for name in ("estimator", "regressor"):  # of a search, or of a model of a transformed target
        inner = getattr(model, name, None)
        if hasattr(inner, "get_params"):
            return takes_text_documents(inner)
    return any(
        kind.__module__ == "sklearn.feature_extraction.text" and kind.__name__ == "_VectorizerMixin"
        for kind in type(model).__mro__
    )
