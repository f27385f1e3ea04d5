"""Chooses a replica's rows for the prediction log, collects them, and passes them to the writer as segments."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mlapp.config import Monitor
from mlapp.monitoring.answered_rows import (
    AnsweredRows,
    LoggedRows,
    describe_logged_rows,
    join_logged_rows,
    take_logged_rows,
)
from mlapp.monitoring.batch import Call, LoggedBatch, RecordedBatch, RecordedRows, RequestNames, take_recorded_rows
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.log_rows import make_log_table
from mlapp.monitoring.number_blocks import NumberBlocks
from mlapp.monitoring.number_segments import encode_number_rows
from mlapp.monitoring.own_ids import OwnIds
from mlapp.monitoring.place import HOUR, parse_rate
from mlapp.monitoring.recorded_model import RecordedModel
from mlapp.monitoring.sampling import BITS, BURST, Sampler, find_rows_below, hash_requests, hash_rows
from mlapp.monitoring.segment_merger import SMALL
from mlapp.monitoring.segments import MANY, encode_segment_table
from mlapp.monitoring.writer import Writer

log = logging.getLogger("mlapp.monitoring")
CELLS_OF_SEGMENT = 491_520
"""Number of feature cells from which rows become a segment at once, instead of each half second. From 4 MB on, NumPy
asks for huge pages, and the event loop would wait while the kernel clears 2 MB at once."""
FEWEST_COLUMNS = 16
"""Number of features that ids, times and predictions of a row count for."""
BYTES_OF_CELL = 8
ROWS_OF_BATCH = 4_096
"""Maximum rows of a batch in a sample, unless its rate allows more at once."""


class RowLog:
    """Chooses rows of batches, and writes them as segments.

    Args:
        new_id: makes an id for a request that has none.
    """

    def __init__(self, app: str, settings: Monitor, writer: Writer, new_id: Callable[[], bytes]) -> None:
        self._app, self._writer, self._new_id = app, writer, new_id
        rate = parse_rate(settings.rows)
        self._sampler = None if settings.logs == "all" else Sampler(rate)
        self._rows_of_batch = max(ROWS_OF_BATCH, int(rate * BURST))
        self._rules = ColumnPrivacy(settings.columns, app)
        self._gathered: dict[tuple[int, int], tuple[Any, list[LoggedRows]]] = {}
        self._cells = 0
        self._own_ids = OwnIds()
        self._blocks = NumberBlocks(CELLS_OF_SEGMENT) if self._sampler is None and not settings.columns else None

    def copy(
        self,
        model: RecordedModel,
        packed: Any,
        ids: Sequence[bytes | None],
        predictions: Sequence[Any],
        seconds: float,
        at: float,
    ) -> bool:
        """Copy the rows of a call, one of each request, if all rows are logged and these are numbers. Called on the
        request path.

        Args:
            packed: the features.
            seconds: that the call took; it was answered `at` this time.

        Returns:
            Whether they were copied.
        """
        blocks = self._blocks
        return blocks is not None and blocks.add(model, packed, self._complete_ids(ids), predictions, seconds, at)

    def find_own_rows(self, first: Any, last: Any, count: int) -> tuple[list[int], int] | None:
        """The indexes of the rows of a call that a sample can keep, and the power of two below which these rows are
        complete; None if a look at each id is needed. Called on the request path.

        Args:
            first, last: the features of the first and of the last request.
            count: of requests with one row each.
        """
        if self._sampler is None or first.own_ids != count:
            return None
        bits = self._sampler.limit_bits
        places = self._own_ids.find_requests_below(first.id, last.id, count, bits)
        return None if places is None else (places, bits)

    def select(self, names: RequestNames, rows: RecordedRows, calls: Sequence[Call]) -> LoggedBatch | None:
        """What is still to do for the rows of calls; None for nothing. Called on the request path.

        Of a sample, most rows are dropped here, by the hash of their id.
        """
        bits = BITS
        if self._sampler is not None:
            large = len(rows.predictions) // self._rows_of_batch
            bits = min(self._sampler.limit_bits, BITS - large.bit_length())
        if bits == BITS:
            return LoggedBatch(names, rows, calls)
        try:
            hashes = hash_requests(names.ids)  # type: ignore[arg-type]
        except TypeError:  # a request has no id: cheaper than a look at each
            names = names._replace(ids=self._complete_ids(names.ids))
            hashes = hash_requests(names.ids)  # type: ignore[arg-type]
        places = find_rows_below(hashes, names.rows, bits)
        if not places:
            return None
        return LoggedBatch(names.take(places), take_recorded_rows(rows, places), calls, places, bits)

    def _complete_ids(self, ids: Sequence[bytes | None]) -> Sequence[bytes]:
        """An id for each request."""
        return ids if all(ids) else [known or self._new_id() for known in ids]  # type: ignore[return-value]

    @property
    def has_full_block(self) -> bool:
        """Whether a full block should be written before the next second."""
        return self._blocks is not None and self._blocks.has_full

    def add(self, answered: AnsweredRows, batches: Sequence[RecordedBatch]) -> None:
        """Choose rows, and write the collected ones when there are enough.

        Args:
            answered: the rows of the batches that can be logged.
        """
        rows = describe_logged_rows(answered, batches, self._new_id)
        if self._sampler is not None:
            hashes = hash_rows(hash_requests(rows.requests), rows.rows)
            bits = min(batch.logged.limit_bits for batch in batches if batch.logged is not None)
            chosen, weight = self._sampler.choose(hashes, bits)
            if not len(chosen):
                return
            rows = take_logged_rows(rows, chosen, weight)
        key = id(answered.model), int(batches[0].at // HOUR)
        self._gathered.setdefault(key, (answered.model, []))[1].append(rows)
        self._cells += max(FEWEST_COLUMNS, len(answered.model.feature_names)) * len(rows)
        if self._cells >= CELLS_OF_SEGMENT:
            self.flush()

    def pass_time(self, seconds: float) -> None:
        """Note that time has passed, which lets the sample have more rows."""
        if self._sampler is not None:
            self._sampler.pass_time(seconds)

    def flush(self, *, is_due: bool = True) -> bool:
        """Write the collected rows: a segment for each version and hour.

        Args:
            is_due: also write if no segment is full.

        Returns:
            Whether rows were written. Those that remain were answered since.
        """
        blocks = () if self._blocks is None else self._blocks.take(is_all=is_due)
        if not is_due and not blocks:
            return False
        for block in blocks:
            with self._lose_on_error(block.rows):
                self._write_rows(block.model, block.list_rows())
        gathered, self._gathered, self._cells = self._gathered, {}, 0
        for key in list(gathered):
            model, pieces = gathered.pop(key)
            with self._lose_on_error(sum(map(len, pieces))):
                logged = join_logged_rows(model, pieces)
                del pieces
                self._write_rows(model, logged)
        return True

    @contextmanager
    def _lose_on_error(self, rows: int) -> Iterator[None]:
        """Count rows as lost if an error prevents their segment, so that the other segments are written."""
        try:
            yield
        except Exception:  # caused by the values of these rows
            log.exception("%s: %d rows could not be logged", self._app, rows)
            self._writer.lose_rows(rows)

    def _write_rows(self, model: RecordedModel, logged: LoggedRows) -> None:
        """Write a segment of one model and hour."""
        version, at, rows = model.version or "unsaved", float(logged.times[0]), len(logged)
        pieces = None
        is_burst = self._sampler is not None and rows > 2 * self._sampler.rate  # pyarrow is not imported for it
        if is_burst or rows >= MANY or rows * BYTES_OF_CELL * (FEWEST_COLUMNS + len(model.feature_names)) < SMALL:
            pieces = encode_number_rows(version, logged, model.feature_names, self._rules)
        if pieces is not None:
            self._writer.add_segment(version, at, pieces, rows)
            return
        import pyarrow as pa

        table = make_log_table(version, logged, model.feature_names, self._rules)
        del logged
        content, size = encode_segment_table(table, is_quick=True), table.nbytes
        del table
        pa.default_memory_pool().release_unused()
        self._writer.add_segment(version, at, content, rows, size)
