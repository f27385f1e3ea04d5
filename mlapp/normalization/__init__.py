"""Normalizes the result of a predictor, so that every output has the same predictions.

A predictor may return what its library returns: a list, an array, a DataFrame, a sparse matrix, an Arrow or polars
table, a tensor, objects of its own classes. `normalize_predictions` converts it to a list, an array, a Series or a
DataFrame with one entry per row, and `normalize_to_rows` converts those to JSON values. HTTP in each protocol, gRPC,
the command line, Python and batch prediction start from these.
"""

from mlapp.normalization.containers import normalize_predictions
from mlapp.normalization.json_rows import normalize_to_json, normalize_to_rows
from mlapp.normalization.json_size import MANY, SHORT, estimate_json_values
from mlapp.normalization.tables import normalize_to_table

__all__ = [
    "MANY",
    "SHORT",
    "estimate_json_values",
    "normalize_predictions",
    "normalize_to_json",
    "normalize_to_rows",
    "normalize_to_table",
]
