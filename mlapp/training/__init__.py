"""Training: the pipeline's stages, run in this process. The default engine."""

from mlapp.training.run import run

__all__ = ["run"]
