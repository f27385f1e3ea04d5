"""Training: the pipeline's stages, run in this process. The default engine."""

from mlapp.training.monitored_names import check_monitored_columns, read_column_rules
from mlapp.training.reader_parts import read_parts
from mlapp.training.run import read_features, read_table, run

__all__ = ["check_monitored_columns", "read_column_rules", "read_features", "read_parts", "read_table", "run"]
