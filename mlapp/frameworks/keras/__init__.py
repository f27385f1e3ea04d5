"""Keras 3: models on any of its backends, saved as `.keras`."""

from mlapp.frameworks.keras.adapter import KerasFramework

__all__ = ["KerasFramework"]
