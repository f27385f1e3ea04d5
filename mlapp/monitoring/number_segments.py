"""Converts rows of numbers to a segment of the log, without pyarrow."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlapp.monitoring.answered_rows import LoggedRows
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.counts import has_uniform_numbers
from mlapp.monitoring.log_rows import transpose_cells
from mlapp.monitoring.plain_parquet import TYPES, PlainColumn, encode_levels, encode_plain_file, encode_texts
from mlapp.monitoring.segments import FORMAT, META, name_segment_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

PREDICTION = "prediction"


def encode_number_rows(
    version: str, logged: LoggedRows, names: Sequence[str], rules: ColumnPrivacy
) -> list[Any] | None:
    """The pieces of a segment.

    None if a column is redacted or has other values than numbers, or a request has keys or many rows.

    Args:
        names: of the features in an array.
    """
    names_and_cells = _find_cells(logged.features, names)
    if names_and_cells is None or logged.keys or (logged.is_numbered is not None and logged.is_numbered.any()):
        return None
    columns, cells = names_and_cells
    predictions = make_number_array(logged.predictions)
    if predictions is None or rules.has_rules_for((*columns, PREDICTION)) or len(set(columns)) < len(columns):
        return None
    requests = encode_texts(logged.requests)
    if not requests.isascii():
        return None
    rows = len(logged)
    label = version.encode()
    return encode_plain_file(
        [
            PlainColumn("id", "text", requests),
            PlainColumn("request", "text", requests),
            PlainColumn("row", "int32", logged.rows.astype(np.int32)),
            PlainColumn("time", "time", (logged.times * 1e6).astype(np.int64)),
            PlainColumn("version", "text", (struct.pack("<I", len(label)) + label) * rows),
            PlainColumn("latency", "float32", logged.seconds.astype(np.float32)),
            PlainColumn("weight", "float32", logged.weights),
            *_make_columns(list(name_segment_columns(columns).values()), transpose_cells(cells)),
            *_make_columns([PREDICTION], predictions[None]),
        ],
        rows,
        {META: FORMAT},
    )


def _find_cells(features: Any, names: Sequence[str]) -> tuple[Sequence[str], NDArray[Any]] | None:
    """The names and the numbers of features, a row for each."""
    if hasattr(features, "columns"):
        if not has_uniform_numbers(features):
            return None
        names, cells = list(map(str, features.columns)), features.to_numpy()
    elif isinstance(features, np.ndarray):
        cells = features.reshape(len(features), -1)
    else:
        return None
    return (names, cells) if cells.dtype.name in TYPES and cells.shape[1] == len(names) else None


def make_number_array(predictions: Sequence[Any] | NDArray[Any]) -> NDArray[Any] | None:
    """Predictions as floats or integers of 64 bits; None if they are something else."""
    if isinstance(predictions, np.ndarray):
        return predictions
    first = predictions[0]
    kind = "d" if isinstance(first, float) else "q" if type(first) is int else None
    if kind is not None:
        with contextlib.suppress(struct.error, OverflowError):
            return np.frombuffer(struct.pack(f"={len(predictions)}{kind}", *predictions), kind)
    return None


def _make_columns(names: Sequence[str], columns: NDArray[Any]) -> list[PlainColumn]:
    """Columns of numbers; NaN is missing."""
    kind = columns.dtype.name
    if kind.startswith("float") and np.isnan(columns.max()):
        plain_columns = []
        for name, column in zip(names, columns, strict=True):
            is_known = ~np.isnan(column)
            levels = b"" if is_known.all() else encode_levels(is_known)
            plain_columns.append(PlainColumn(name, kind, column[is_known] if levels else column, levels))
        return plain_columns
    return [PlainColumn(name, kind, column) for name, column in zip(names, columns, strict=True)]
