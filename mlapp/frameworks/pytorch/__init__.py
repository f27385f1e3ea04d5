"""PyTorch: modules trained by a plain loop, their weights saved as safetensors."""

from mlapp.frameworks.pytorch.adapter import PyTorchFramework

__all__ = ["PyTorchFramework"]
