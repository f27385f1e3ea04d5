"""Training: the pipeline's stages, run in this process. The default engine."""

from mlapp.training.private import private_columns
from mlapp.training.reader_parts import read_parts
from mlapp.training.run import read_features, read_table, run

__all__ = ["private_columns", "read_features", "read_parts", "read_table", "run"]
