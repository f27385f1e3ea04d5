"""Tables and targets as the arrays that neural networks take, and what they give as predictions."""

from __future__ import annotations

from typing import Any

from mlapp.errors import DataError, ModelError


def features_to_array(features: Any) -> Any:
    """Features as 32-bit floats, rows first.

    Raises:
        DataError: a column holds something else than numbers; names it.
    """
    import numpy as np

    if hasattr(features, "dtypes") and hasattr(features, "columns"):
        for name, dtype in features.dtypes.items():
            if dtype.kind not in "biuf":
                raise DataError(
                    f"Column '{name}' holds {dtype}: a neural network takes numbers.",
                    "Turn it into numbers in an @app.feature_transformer.",
                )
        features = features.to_numpy(dtype=np.float32)
    return np.array(features, dtype=np.float32)


def target_to_array(target: Any, outputs: int) -> tuple[Any, list[Any] | None]:
    """The target as numbers, and its labels where it is a class: then they are the numbers of the labels.

    Args:
        outputs: what the model gives a row. Two or more and a target of one column that is not of floats: a class.

    Raises:
        ModelError: more classes than the model has outputs. DataError: a text for a model with one output.
    """
    import numpy as np

    values = np.asarray(target)
    is_column = values.ndim == 1 or values.shape[1] == 1
    if outputs > 1 and is_column and values.dtype.kind != "f":
        values = values.ravel()
        if values.dtype.kind in "iu" and values.min() >= 0 and values.max() < outputs:
            return values.astype(np.int64), list(range(outputs))
        labels, codes = np.unique(values, return_inverse=True)
        if len(labels) > outputs:
            raise ModelError(
                f"The target has {len(labels)} classes, the model {outputs} outputs.",
                f"Let the model function build a model with {len(labels)} outputs.",
            )
        return codes.astype(np.int64), labels.tolist()
    if values.dtype.kind not in "biuf":
        raise DataError(
            "The target is a text, and the model has one output.", "Let the model have one output for each class."
        )
    return values.astype(np.float32).reshape(len(values), -1), None


def require_finite_features(values: Any, features: Any) -> None:
    """Check that no number of the features is missing or infinite.

    Raises:
        DataError: one is; names the column.
    """
    import numpy as np

    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=0))
    if len(bad):
        name = f"Column '{features.columns[bad[0]]}'" if hasattr(features, "columns") else f"Column {bad[0]}"
        raise DataError(
            f"{name} of the features has missing or infinite values: the loss would be no number.",
            "Fill or drop them in the data_reader or a feature_transformer.",
        )


def outputs_to_predictions(outputs: Any, labels: list[Any] | None) -> Any:
    """Predictions: the label of each row's best score, or the numbers. One score a row is that of the second label."""
    import numpy as np

    if labels is not None:
        is_one = outputs.ndim == 1 or outputs.shape[1] == 1
        best = (outputs.ravel() > 0.5).astype(int) if is_one else outputs.argmax(axis=1)
        return np.asarray(labels)[best]
    return outputs[:, 0] if outputs.ndim == 2 and outputs.shape[1] == 1 else outputs
