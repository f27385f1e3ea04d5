"""Normalizes the result of a predictor to one form for every output.

A predictor may return what its library gives: a list, an array, a DataFrame, a sparse matrix, an Arrow or polars
table, a tensor, objects of its own classes. `normalize_predictions` makes a list, an array, a Series or a DataFrame of
it, with one entry a row; `normalize_to_rows` makes values that JSON holds of those. HTTP in each protocol, gRPC, the
command line, Python and batch prediction start from these, so that all of them answer the same.
"""

from mlapp.normalization.containers import normalize_predictions
from mlapp.normalization.json_rows import MANY, normalize_to_json, normalize_to_rows
from mlapp.normalization.tables import normalize_to_table

__all__ = ["MANY", "normalize_predictions", "normalize_to_json", "normalize_to_rows", "normalize_to_table"]
