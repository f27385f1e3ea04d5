"""Training: the pipeline's stages, run in this process. The default engine."""

from mlapp.training.monitored_names import check_monitored_columns, read_monitored_columns
from mlapp.training.reader_parts import iterate_reader_parts
from mlapp.training.run import read_and_load, read_features, run

__all__ = [
    "check_monitored_columns",
    "iterate_reader_parts",
    "read_and_load",
    "read_features",
    "read_monitored_columns",
    "run",
]
