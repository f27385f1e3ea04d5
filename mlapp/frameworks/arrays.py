"""Converts tables and targets to the arrays of neural networks, and their outputs to predictions."""

from __future__ import annotations

from typing import Any

from mlapp.errors import DataError, ModelError


def features_to_array(features: Any) -> Any:
    """Features as an array of 32-bit floats, with one row per row of the features.

    Raises:
        DataError: a column has values other than numbers; names it.
    """
    import numpy as np

    if hasattr(features, "dtypes") and hasattr(features, "columns"):
        for name, dtype in features.dtypes.items():
            if dtype.kind not in "biuf":
                raise DataError(
                    f"Column '{name}' contains {dtype}, but a neural network needs numbers.",
                    "Convert it to numbers in an @app.feature_transformer.",
                )
        features = features.to_numpy(dtype=np.float32)
    return np.array(features, dtype=np.float32)


def target_to_array(target: Any, outputs: int) -> tuple[Any, list[Any] | None]:
    """The target as numbers, and its labels if it is a class. The numbers of a class are indexes of its labels.

    Args:
        outputs: number of the model's outputs per row. With several, a target of one column without floats is a class.

    Raises:
        ModelError: the target has more classes than the model has outputs. DataError: the target has lists, or texts
            for a model with one output.
    """
    import numpy as np

    values = np.asarray(target)
    require_plain_target_array(values)
    is_column = values.ndim == 1 or values.shape[1] == 1
    if outputs > 1 and is_column and values.dtype.kind != "f":
        values = values.ravel()
        if values.dtype.kind in "iu" and values.min() >= 0 and values.max() < outputs:
            return values.astype(np.int64), list(range(outputs))
        labels, codes = np.unique(values, return_inverse=True)
        if len(labels) > outputs:
            raise ModelError(
                f"The target has {len(labels)} classes, but the model has {outputs} outputs.",
                f"Build a model with {len(labels)} outputs in the model function.",
            )
        return codes.astype(np.int64), labels.tolist()
    if values.dtype.kind not in "biuf":
        raise DataError(
            "The target is text, but the model has only one output.", "Give the model one output for each class."
        )
    return values.astype(np.float32).reshape(len(values), -1), None


def require_plain_target_array(values: Any) -> None:
    """Check that no row of the target is a list, set or dict, such as a set of labels.

    Raises:
        DataError: names the first such row.
    """
    if values.dtype.kind != "O":
        return
    for at, value in enumerate(values.ravel().tolist()):
        if isinstance(value, (list, tuple, set, frozenset, dict)) or hasattr(value, "ndim"):
            raise DataError(
                f"Row {at} of the target is {value!r:.60}, but the default trainer needs one class or number per row.",
                "Return one per row, or write an @app.trainer and an @app.predictor for several labels.",
            )


def require_finite_feature_array(values: Any, features: Any) -> None:
    """Check that the features have no missing or infinite numbers.

    Raises:
        DataError: names the first column that has one.
    """
    import numpy as np

    columns = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=0))
    if len(columns):
        name = f"Column '{features.columns[columns[0]]}'" if hasattr(features, "columns") else f"Column {columns[0]}"
        raise DataError(
            f"{name} of the features has missing or infinite values, so the loss would not be a number.",
            "Fill or drop them in the data_reader or a feature_transformer.",
        )


def convert_framework_output_array(outputs: Any, labels: list[Any] | None) -> Any:
    """Convert a model's outputs to predictions: the label of each row's best score, or numbers if there are no labels.

    A single score per row is the probability of the second label.
    """
    import numpy as np

    if labels is not None:
        is_single = outputs.ndim == 1 or outputs.shape[1] == 1
        best = (outputs.ravel() > 0.5).astype(int) if is_single else outputs.argmax(axis=1)
        return np.asarray(labels)[best]
    return outputs[:, 0] if outputs.ndim == 2 and outputs.shape[1] == 1 else outputs
