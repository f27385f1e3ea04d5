"""A replica's rows of the prediction log: collects, chooses, and passes them to the writer as segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlapp.config import Monitor
from mlapp.monitoring.batch import RecordedBatch
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.log_rows import flatten, make_log_columns, make_log_table, requests_of
from mlapp.monitoring.place import parse_rate
from mlapp.monitoring.sampling import Sampler, hash_rows
from mlapp.monitoring.segments import encode_table
from mlapp.monitoring.writer import Writer

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

CELLS_OF_SEGMENT = 524_288
"""Number of feature cells from which rows become a segment at once, instead of once per second. A segment of 64 columns
costs as much as 8,000 of its rows."""
FEWEST_COLUMNS = 16
"""Cost of ids, times and predictions, in features."""


class ChosenRows(NamedTuple):
    """The rows of a batch to log.

    Attributes:
        rows: their indexes in the batch; None for all.
        weight: the number of rows that each represents.
    """

    batch: RecordedBatch
    rows: NDArray[np.int64] | None
    weight: float


class RowLog:
    """Chooses rows of batches, and writes them as segments.

    Args:
        new_id: makes an id for a request that has none.
    """

    def __init__(self, app: str, settings: Monitor, writer: Writer, new_id: Callable[[], bytes]) -> None:
        self._writer, self._new_id = writer, new_id
        self._sampler = None if settings.logs == "all" else Sampler(parse_rate(settings.rows))
        self._rules = ColumnPrivacy(settings.columns, app)
        self._gathered: list[ChosenRows] = []
        self._cells = 0

    def add(self, batches: Sequence[RecordedBatch], seconds: float) -> None:
        """Choose rows from batches of one model, and write the collected rows when there are enough.

        Args:
            seconds: since the last call.
        """
        self._name_requests(batches)
        if self._sampler is None:
            chosen = [ChosenRows(batch, None, 1.0) for batch in batches]
        else:
            chosen = _choose(self._sampler, batches, seconds)
        if not chosen:
            return
        self._gathered += chosen
        columns = max(FEWEST_COLUMNS, len(batches[0].model.feature_names))
        self._cells += columns * sum([len(found.batch.predictions) for found in chosen])
        if self._cells >= CELLS_OF_SEGMENT:
            self.flush()

    def flush(self) -> None:
        """Write the collected rows: a segment for each version and hour."""
        gathered, self._gathered, self._cells = self._gathered, [], 0
        groups: dict[tuple[int, int], list[ChosenRows]] = {}
        import pyarrow as pa

        for found in gathered:
            groups.setdefault((id(found.batch.model), int(found.batch.at // 3600)), []).append(found)
        del gathered
        for key in list(groups):
            group = groups.pop(key)
            version, at = group[0].batch.model.version or "unsaved", group[0].batch.at
            table = self._make_table(version, group)
            group.clear()  # the rows are in memory twice until here
            content, rows, size = encode_table(table, is_quick=True), table.num_rows, table.nbytes
            del table
            pa.default_memory_pool().release_unused()
            self._writer.add_segment(version, at, content, rows, size)

    def _make_table(self, version: str, group: list[ChosenRows]) -> pa.Table:
        """Rows of one model and hour."""
        model = group[0].batch.model
        answered = flatten([found.batch for found in group])
        chosen, weights = _join(group)
        columns = make_log_columns(model.combine_stripped(answered.parts), model.feature_names, chosen, len(answered))
        return make_log_table(version, answered, chosen, weights, columns, self._rules)

    def _name_requests(self, batches: Sequence[RecordedBatch]) -> None:
        """Create an id for each request without one."""
        for batch in batches:
            ids = batch.requests.ids if batch.requests is not None else []
            if not all(ids):
                ids[:] = [known or self._new_id() for known in ids]


def _choose(sampler: Sampler, batches: Sequence[RecordedBatch], seconds: float) -> list[ChosenRows]:
    """The rows that the sampler keeps, batch by batch."""
    rows, weight = sampler.choose(hash_rows(*requests_of(batches)), seconds)
    if not len(rows):
        return []
    ends = np.cumsum([len(batch.predictions) for batch in batches])
    of = np.searchsorted(ends, rows, side="right")
    return [
        ChosenRows(batches[at], rows[of == at] - (int(ends[at]) - len(batches[at].predictions)), weight)
        for at in np.unique(of).tolist()
    ]


def _join(group: Sequence[ChosenRows]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Indexes and weights of the chosen rows among the rows of all these batches."""
    places, weights, first = [], [], 0
    for batch, rows, weight in group:
        count = len(batch.predictions)
        places.append(np.arange(first, first + count) if rows is None else first + rows)
        weights.append(np.full(len(places[-1]), weight, dtype=np.float32))
        first += count
    return np.concatenate(places), np.concatenate(weights)
