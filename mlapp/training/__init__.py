"""Training: the pipeline's stages, run in this process. The default engine."""

from mlapp.training.reader_parts import iterate_reader_parts
from mlapp.training.run import read_features, read_training_table, run

__all__ = [
    "iterate_reader_parts",
    "read_features",
    "read_training_table",
    "run",
]
