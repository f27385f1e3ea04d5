"""Training: the pipeline's stages, run in this process. The default engine."""

from mlapp.training.run import read_features, run

__all__ = ["read_features", "run"]
