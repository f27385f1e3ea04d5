"""Training: the pipeline's stages, run in this process. The default engine."""

from mlapp.training.run import read_features, read_table, run

__all__ = ["read_features", "read_table", "run"]
