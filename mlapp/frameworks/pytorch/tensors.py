"""Between tables and tensors."""

from __future__ import annotations

from typing import Any

import msgspec

from mlapp.errors import DataError, ModelError

BATCH = 4096
"""Rows that go through a module at once in prediction."""


def of_features(features: Any) -> Any:
    """Features as a tensor of 32-bit floats, rows first; a tensor stays as it is.

    Raises:
        DataError: a column holds something else than numbers; names it.
    """
    import numpy as np
    import torch

    if isinstance(features, torch.Tensor):
        return features
    if hasattr(features, "dtypes") and hasattr(features, "columns"):
        for name, dtype in features.dtypes.items():
            if dtype.kind not in "biuf":
                raise DataError(
                    f"Column '{name}' holds {dtype}: a PyTorch module takes numbers.",
                    "Turn it into numbers in an @app.feature_transformer.",
                )
        features = features.to_numpy(dtype=np.float32)
    return torch.from_numpy(np.array(features, dtype=np.float32))


def of_target(target: Any, outputs: int) -> tuple[Any, list[Any] | None]:
    """The target as a tensor, and its labels where it is a class: then the tensor holds their numbers.

    Args:
        outputs: what the module gives a row. Two or more and a target of one column that is not of floats: a class.

    Raises:
        ModelError: more classes than the module has outputs. DataError: a text for a module with one output.
    """
    import numpy as np
    import torch

    values = np.asarray(target)
    is_column = values.ndim == 1 or values.shape[1] == 1
    if outputs > 1 and is_column and values.dtype.kind != "f":
        values = values.ravel()
        if values.dtype.kind in "iu" and values.min() >= 0 and values.max() < outputs:
            return torch.from_numpy(values.astype(np.int64)), list(range(outputs))
        labels, codes = np.unique(values, return_inverse=True)
        if len(labels) > outputs:
            raise ModelError(
                f"The target has {len(labels)} classes, the module {outputs} outputs.",
                f"Let the model function build a module with {len(labels)} outputs.",
            )
        return torch.from_numpy(codes.astype(np.int64)), labels.tolist()
    if values.dtype.kind not in "biuf":
        raise DataError(
            "The target is a text, and the module has one output.", "Let the module have one output for each class."
        )
    return torch.from_numpy(values.astype(np.float32).reshape(len(values), -1)), None


def outputs(model: Any, features: Any) -> Any:
    """What the module gives for all rows, on the CPU."""
    import torch

    device = next((weights.device for weights in model.parameters()), torch.device("cpu"))
    model.eval()
    with torch.inference_mode():
        parts = [model(features[at : at + BATCH].to(device)).cpu() for at in range(0, len(features), BATCH)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def answers(outputs: Any, labels: list[Any] | None) -> Any:
    """Predictions: the label of each row's best score, or the numbers."""
    import numpy as np

    if labels is not None:
        return np.asarray(labels)[outputs.argmax(dim=1).numpy()]
    numbers = outputs.numpy()
    return numbers[:, 0] if numbers.ndim == 2 and numbers.shape[1] == 1 else numbers


def write_labels(labels: list[Any] | None) -> dict[str, str] | None:
    """Labels as the metadata of a safetensors file."""
    return None if labels is None else {"labels": msgspec.json.encode(labels).decode()}


def read_labels(metadata: dict[str, str] | None) -> list[Any] | None:
    """The labels of a safetensors file's metadata."""
    text = (metadata or {}).get("labels")
    labels: list[Any] | None = msgspec.json.decode(text) if text else None
    return labels
