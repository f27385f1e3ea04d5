"""Converts rows to log to a segment of the log, column by column, without Python code per cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlapp.monitoring.answered_rows import LoggedRows
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.counts import has_uniform_numbers
from mlapp.monitoring.segments import make_segment_table

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

AT_ONCE = 256
"""Number of rows to transpose at once."""


def make_log_table(version: str, logged: LoggedRows, names: Sequence[str], rules: ColumnPrivacy) -> pa.Table:
    """The log's rows.

    Args:
        names: of the features in an array.
    """
    own = _make_own_columns(version, logged)
    columns = _make_log_columns(logged.features, names)
    predictions = logged.predictions
    rows = predictions.tolist() if isinstance(predictions, np.ndarray) else predictions
    return make_segment_table(columns, rows, own, logged.keys, rules)


def _make_own_columns(version: str, logged: LoggedRows) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    request = _make_log_row_texts(logged.requests)
    identity = request
    if logged.is_numbered is not None and logged.is_numbered.any():
        numbered = pc.binary_join_element_wise(request, pa.array(logged.rows).cast(pa.string()), "#")
        identity = pc.if_else(pa.array(logged.is_numbered), numbered, request)
    return {
        "id": identity,
        "request": request,
        "row": pa.array(logged.rows.astype(np.int32)),
        "version": pa.repeat(pa.scalar(version, pa.string()), len(logged)),
        "time": logged.times,
        "latency": logged.seconds.astype(np.float32),
        "weight": logged.weights,
    }


def _make_log_row_texts(texts: Sequence[bytes]) -> pa.Array:
    """Texts in UTF-8, or else in Latin-1."""
    import pyarrow as pa

    try:
        return pa.array(texts, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([text.decode("latin-1") for text in texts], pa.string())


def _make_log_columns(features: Any, names: Sequence[str]) -> dict[str, Any]:
    """The columns of features in a table, an array, a dict of arrays or a list."""
    if hasattr(features, "columns"):
        if has_uniform_numbers(features):
            return dict(zip(map(str, features.columns), transpose_cells(features.to_numpy()), strict=True))
        return {str(name): values for name, values in features.items()}
    if isinstance(features, Mapping):
        return {str(name): _list_log_row_values(part) for name, part in features.items()}
    if isinstance(features, np.ndarray) and features.dtype.kind in "biuf":
        cells = features.reshape(len(features), -1)
        if cells.shape[1] == len(names):
            return dict(zip(names, transpose_cells(cells), strict=True))
        return {"features": cells.tolist()}
    if isinstance(features, list):
        return {"features": features}
    return {}


def transpose_cells(cells: NDArray[Any]) -> NDArray[Any]:
    """Convert columns to contiguous rows, in chunks that fit the processor's cache, unless they are contiguous."""
    if len(cells) > 1 and cells.strides[0] == cells.itemsize:
        return cells.T
    rows = np.empty(cells.shape[::-1], dtype=cells.dtype)
    for start in range(0, len(cells), AT_ONCE):
        rows[:, start : start + AT_ONCE] = cells[start : start + AT_ONCE].T
    return rows


def _list_log_row_values(part: Any) -> Any:
    """An array of features as one value per row; several dimensions become lists."""
    return part.tolist() if getattr(part, "ndim", 1) > 1 else part
