"""Converts answered rows to rows of the log, column by column, without Python code per cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from mlapp.monitoring.batch import RecordedBatch
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.counts import is_block
from mlapp.monitoring.sampling import join_texts
from mlapp.monitoring.segments import make_segment_table

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

AT_ONCE = 256
"""Number of rows to transpose at once."""


@dataclass(frozen=True)
class Answered:
    """The answers of one version, in order.

    Attributes:
        parts: their features.
        predictions: of each row.
        ids, counts, keys: of each request its id, its number of rows, and its business keys; `keys` is empty if no
            request has any.
        seconds, times: of each request, the duration of the model's call, and the time of the answer (since 1970).
    """

    parts: list[Any]
    predictions: list[Any]
    ids: list[bytes]
    counts: NDArray[np.int64]
    keys: list[Any]
    seconds: NDArray[np.float64]
    times: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.predictions)


def flatten(batches: Sequence[RecordedBatch]) -> Answered:
    """The answers of some batches, whose requests all have ids."""
    parts = list(chain.from_iterable([batch.parts for batch in batches]))
    predictions = list(chain.from_iterable([batch.predictions for batch in batches]))
    ids, counts = requests_of(batches)
    names = [batch.requests for batch in batches if batch.requests is not None]
    keys: list[Any] = []
    if any(one.keys for one in names):
        keys = [key for one in names for key in one.keys or [None] * len(one.ids)]
    sizes = [len(one.ids) for one in names]
    seconds = np.repeat([batch.seconds for batch in batches], sizes)
    times = np.repeat([batch.at for batch in batches], sizes)
    return Answered(parts, predictions, ids, counts, keys, seconds, times)


def requests_of(batches: Sequence[RecordedBatch]) -> tuple[list[bytes], NDArray[np.int64]]:
    """Id and number of rows of each request."""
    names = [batch.requests for batch in batches if batch.requests is not None]
    ids: list[Any] = list(chain.from_iterable([one.ids for one in names]))
    if all(one.rows is None for one in names):
        return ids, np.ones(len(ids), dtype=np.int64)
    rows = chain.from_iterable([one.rows or [1] * len(one.ids) for one in names])
    return ids, np.fromiter(rows, dtype=np.int64, count=len(ids))


def make_log_table(
    version: str,
    answered: Answered,
    chosen: NDArray[np.int64],
    weights: NDArray[np.float32],
    columns: Mapping[str, Any],
    rules: ColumnPrivacy,
) -> pa.Table:
    """The log's rows.

    Args:
        chosen: the rows to log, in order.
        weights: the number of rows that each one represents.
        columns: the features of these rows.
    """
    counts = answered.counts
    ends = np.cumsum(counts)
    of = np.searchsorted(ends, chosen, side="right")
    rows = chosen - (ends - counts)[of]
    own = own_columns(version, answered.ids, counts, of, rows)
    own["time"] = answered.times[of]
    own["latency"] = answered.seconds[of].astype(np.float32)
    own["weight"] = weights
    keys: list[Any] = []
    if answered.keys:
        pairs = zip(of.tolist(), rows.tolist(), strict=True)
        keys = [_select_business_key(answered.keys[request], row) for request, row in pairs]
    is_whole = len(chosen) == len(answered)
    predictions = answered.predictions if is_whole else [answered.predictions[at] for at in chosen.tolist()]
    return make_segment_table(columns, predictions, own, keys, rules)


def own_columns(
    version: str, requests: Sequence[bytes], counts: NDArray[Any], of: NDArray[Any], rows: NDArray[Any]
) -> dict[str, Any]:
    """`id`, `request`, `row` and `version` of the rows.

    Args:
        counts: rows of each request.
        of: the index of each row's request in `requests`; `rows`: its index in the request.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    names = _make_text_array(requests)
    request = names if len(of) == len(requests) and len(of) == int(counts.sum()) else names.take(pa.array(of))
    identity = request
    if (counts[of] > 1).any():
        numbered = pc.binary_join_element_wise(request, pa.array(rows).cast(pa.string()), "#")
        identity = pc.if_else(pa.array(counts[of] > 1), numbered, request)
    return {
        "id": identity,
        "request": request,
        "row": pa.array(rows.astype(np.int32)),
        "version": pa.repeat(pa.scalar(version, pa.string()), len(of)),
    }


def _make_text_array(texts: Sequence[bytes]) -> pa.Array:
    """Texts in UTF-8, or else in Latin-1."""
    import pyarrow as pa

    letters = join_texts(texts)
    if letters is not None and letters.shape[1] and letters.max(initial=0) < 128:
        ends = np.arange(len(texts) + 1, dtype=np.int32) * np.int32(letters.shape[1])
        return pa.StringArray.from_buffers(len(texts), pa.py_buffer(ends), pa.py_buffer(letters.tobytes()))
    try:
        return pa.array(texts, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([text.decode("latin-1") for text in texts], pa.string())


def make_log_columns(features: Any, names: Sequence[str], chosen: NDArray[Any], rows: int) -> dict[str, Any]:
    """The columns of features in a table, an array, a dict of arrays or a list.

    Args:
        chosen: the indexes of the selected rows among `rows`.
    """
    is_whole = len(chosen) == rows
    if hasattr(features, "columns"):
        if is_block(features):
            cells = features.to_numpy()
            return _make_number_columns(list(map(str, features.columns)), cells if is_whole else cells[chosen])
        some = features if is_whole else features.iloc[chosen]
        return {str(name): values for name, values in some.items()}
    if isinstance(features, Mapping):
        return {
            str(name): _list_row_values(part if is_whole else _take(part, chosen)) for name, part in features.items()
        }
    if isinstance(features, np.ndarray) and features.dtype.kind in "biuf":
        some = (features if is_whole else features[chosen]).reshape(len(chosen), -1)
        if some.shape[1] == len(names):
            return _make_number_columns(names, some)
        return {"features": some.tolist()}
    if isinstance(features, list):
        return {"features": features if is_whole else [features[at] for at in chosen.tolist()]}
    return {}


def _make_number_columns(names: Sequence[str], cells: NDArray[Any]) -> dict[str, Any]:
    """Rows of numbers as columns, which are Arrow arrays if none is missing."""
    import pyarrow as pa

    columns = _transpose(cells)
    if not math.isfinite(float(cells.sum(dtype=np.float64))):
        return dict(zip(names, columns, strict=True))
    return {name: pa.array(column) for name, column in zip(names, columns, strict=True)}


def _transpose(cells: NDArray[Any]) -> NDArray[Any]:
    """Convert columns to contiguous rows, in chunks that fit the processor's cache."""
    found = np.empty(cells.shape[::-1], dtype=cells.dtype)
    for start in range(0, len(cells), AT_ONCE):
        found[:, start : start + AT_ONCE] = cells[start : start + AT_ONCE].T
    return found


def _take(part: Any, chosen: NDArray[Any]) -> Any:
    return part[chosen] if hasattr(part, "dtype") else [part[at] for at in chosen.tolist()]


def _list_row_values(part: Any) -> Any:
    """An array of features as one value per row; several dimensions become lists."""
    return part.tolist() if getattr(part, "ndim", 1) > 1 else part


def _select_business_key(keys: Any, row: int) -> Any:
    return keys[row] if isinstance(keys, list) else keys
