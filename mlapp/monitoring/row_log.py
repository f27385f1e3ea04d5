"""A replica's rows of the prediction log: collects, chooses, and passes them to the writer as segments."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import random
from typing import Any

import numpy as np

from mlapp.config import Monitor
from mlapp.monitoring.answered_rows import (
    AnsweredRows,
    LoggedRows,
    join_logged_rows,
    list_requests,
    log_all,
    log_some,
)
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.log_rows import make_log_table
from mlapp.monitoring.number_segments import encode_number_rows
from mlapp.monitoring.place import parse_rate
from mlapp.monitoring.sampling import Sampler, hash_rows_for_sampling
from mlapp.monitoring.segments import MANY, encode_segment_table
from mlapp.monitoring.writer import SMALL, Writer

CELLS_OF_SEGMENT = 524_288
"""Number of feature cells from which rows become a segment at once, instead of once per second."""
FEWEST_COLUMNS = 16
"""Cost of ids, times and predictions, in features."""
BYTES_OF_CELL = 8
EXAMINED_PER_SECOND = 4_096
"""Rows whose ids are hashed for the sample. If more come, those of batches drawn at random, which stand for others."""


class RowLog:
    """Chooses rows of batches, and writes them as segments.

    Args:
        new_id: makes an id for a request that has none.
    """

    def __init__(self, app: str, settings: Monitor, writer: Writer, new_id: Callable[[], bytes]) -> None:
        self._writer, self._new_id = writer, new_id
        self._sampler = None if settings.logs == "all" else Sampler(parse_rate(settings.rows))
        self._share = 1
        self._rules = ColumnPrivacy(settings.columns, app)
        self._gathered: dict[tuple[int, int], tuple[Any, list[LoggedRows]]] = {}
        self._cells = 0

    def follow_rate(self, rows: int, seconds: float) -> None:
        """Draw as many batches as the rate of rows of the last seconds allows."""
        if self._sampler is not None:
            self._share = max(1, math.ceil(rows / seconds / EXAMINED_PER_SECOND))

    def draw_share(self) -> int:
        """The number of batches that the next one stands for; 0 if it was not drawn."""
        share = self._share
        return share if share == 1 or random() * share < 1.0 else 0

    def add(self, answered: AnsweredRows, seconds: float) -> None:
        """Choose rows, and write the collected ones when there are enough.

        Args:
            seconds: since the last call.
        """
        if self._sampler is None:
            logged = log_all(answered, list_requests(answered.batches, self._new_id))
        else:
            found = self._choose_rows(self._sampler, answered, seconds)
            if found is None:
                return
            logged = found
        key = id(answered.model), int(answered.batches[0].at // 3600)
        self._gathered.setdefault(key, (answered.model, []))[1].append(logged)
        self._cells += max(FEWEST_COLUMNS, len(answered.model.feature_names)) * len(logged)
        if self._cells >= CELLS_OF_SEGMENT:
            self.flush()

    def flush(self) -> None:
        """Write the collected rows: a segment for each version and hour."""
        gathered, self._gathered, self._cells = self._gathered, {}, 0
        for key in list(gathered):
            model, pieces = gathered.pop(key)
            logged = join_logged_rows(model, pieces)
            del pieces
            self._write_rows(model, logged)

    def _choose_rows(self, sampler: Sampler, answered: AnsweredRows, seconds: float) -> LoggedRows | None:
        """The rows that the sampler keeps."""
        batches = answered.batches
        drawn = [at for at, batch in enumerate(batches) if batch.requests is not None]
        requests = list_requests([batches[at] for at in drawn], self._new_id)
        rows, weight = sampler.choose(hash_rows_for_sampling(requests.ids, requests.counts), seconds)
        return log_some(answered, np.array(drawn), requests, rows, weight) if len(rows) else None

    def _write_rows(self, model: Any, logged: LoggedRows) -> None:
        """Write a segment of one model and hour."""
        version, at, rows = model.version or "unsaved", float(logged.times[0]), len(logged)
        content = None
        if rows >= MANY or rows * BYTES_OF_CELL * (FEWEST_COLUMNS + len(model.feature_names)) < SMALL:
            content = encode_number_rows(version, logged, model.feature_names, self._rules)
        if content is not None:
            self._writer.add_segment(version, at, content, rows, len(content))
            return
        import pyarrow as pa

        table = make_log_table(version, logged, model.feature_names, self._rules)
        del logged
        content, size = encode_segment_table(table, is_quick=True), table.nbytes
        del table
        pa.default_memory_pool().release_unused()
        self._writer.add_segment(version, at, content, rows, size)
