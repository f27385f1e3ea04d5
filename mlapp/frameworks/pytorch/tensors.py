"""Converts tables to tensors."""

from __future__ import annotations

from typing import Any

import msgspec

from mlapp.frameworks import arrays

BATCH = 4096
"""Rows per call of the module in prediction."""


def features_to_tensor(features: Any) -> Any:
    """Features as a tensor of 32-bit floats, with one row per row of the features; a tensor stays unchanged.

    Raises:
        DataError: a column has values other than numbers; names it.
    """
    import torch

    return features if isinstance(features, torch.Tensor) else torch.from_numpy(arrays.features_to_array(features))


def target_to_tensor(target: Any, outputs: int) -> tuple[Any, list[Any] | None]:
    """The target as a tensor, and its labels if it is a class; see `arrays.target_to_array`."""
    import torch

    values, labels = arrays.target_to_array(target, outputs)
    return torch.from_numpy(values), labels


def compute_pytorch_output_tensors(model: Any, features: Any) -> Any:
    """The module's outputs for all rows, on the CPU."""
    import torch

    device = next((weights.device for weights in model.parameters()), torch.device("cpu"))
    model.eval()
    with torch.inference_mode():
        parts = [model(features[at : at + BATCH].to(device)).cpu() for at in range(0, len(features), BATCH)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def write_pytorch_tensor_labels(labels: list[Any] | None) -> dict[str, str] | None:
    """Labels as the metadata of a safetensors file."""
    return None if labels is None else {"labels": msgspec.json.encode(labels).decode()}


def read_pytorch_tensor_labels(metadata: dict[str, str] | None) -> list[Any] | None:
    """The labels of a safetensors file's metadata.

    Raises:
        msgspec.MsgspecError: the labels are not a JSON list of texts and numbers.
    """
    text = (metadata or {}).get("labels")
    return msgspec.json.decode(text, type=list[bool | int | float | str]) if text else None
