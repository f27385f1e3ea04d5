"""Records a server's predictions: counts for drift, and rows for the log.

The request path appends one entry a batch to a queue, after the answers are sent. A thread takes them out once a
second. A full queue drops what comes, and counts it.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mlapp.baseline import Baseline
from mlapp.config import Monitor
from mlapp.errors import InputError, Problem
from mlapp.monitoring.answered_rows import AnsweredRows, take_rows
from mlapp.monitoring.batch import RecordedBatch, make_monitoring_batch
from mlapp.monitoring.count_limit import CountLimit
from mlapp.monitoring.counts import Counts
from mlapp.monitoring.live_windows import TICK, LiveWindows
from mlapp.monitoring.metrics import MonitorMetrics
from mlapp.monitoring.place import Place, make_replica_name, parse_seconds
from mlapp.monitoring.row_log import RowLog
from mlapp.monitoring.writer import Writer

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger("mlapp.monitoring")
MOST_CELLS = 2_000_000
"""Cells of features that may wait."""
CELLS_AT_ONCE = 262_144
"""Cells that are counted at once: fewer cost more for each, more make requests wait longer."""
PAUSE = 0.0005
"""Seconds between two of these, in which the event loop gets the interpreter."""
OTHER = "other"
"""The series of refused fields that no feature has: clients name them."""
PATIENCE = 5.0
"""Seconds that the end of a server may wait for its last rows to be written."""


class RecordedModel(Protocol):
    """A model that answers."""

    @property
    def version(self) -> str | None: ...
    @property
    def feature_names(self) -> list[str]: ...
    @property
    def baseline(self) -> Baseline | None: ...
    def strip_parts(self, parts: Sequence[Any]) -> Sequence[Any]: ...
    def combine_stripped(self, parts: list[Any]) -> Any: ...


class Recorder:
    """Records the predictions of one app in one process.

    Args:
        place: where counts and log are written; None keeps them in memory.
        new_id: makes an id for a request that has none.
        replica: names the process; a new name when absent.
    """

    def __init__(
        self,
        app: str,
        settings: Monitor,
        place: Place | None,
        metrics: MonitorMetrics,
        new_id: Callable[[], bytes],
        replica: str | None = None,
    ) -> None:
        self.app = app
        self.settings = settings
        self.place = place
        self.metrics = metrics
        self.replica = replica or make_replica_name()
        self._seconds = parse_seconds(settings.window)
        self._writer = None if place is None else Writer(place, self.replica, self._count_lost_rows, metrics.logged.inc)
        is_near = place is not None and place.folder() is not None
        self._windows = LiveWindows(self._seconds, metrics, self._writer, is_near=is_near)
        self._log: RowLog | None = None
        if settings.logs != "off" and self._writer is not None:
            self._log = RowLog(app, settings, self._writer, new_id)
        self._queue: deque[RecordedBatch] = deque()
        self._refusals: deque[tuple[str, float, Sequence[Problem]]] = deque(maxlen=10_000)
        self._added = self._taken = 0  # each is changed by one thread alone
        self._most = MOST_CELLS
        self._rows_at_once = 1_000
        self._limit = CountLimit()
        self._fields: dict[str, frozenset[str]] = {}
        self._dropped = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._looked = self._rated_at = time.time()
        self._rated = 0
        self._thread = threading.Thread(
            target=_run_recorder, args=(weakref.ref(self), self._stopping, self._wake), name="monitor", daemon=True
        )

    def add(self, model: Any, parts: Sequence[Any], results: Sequence[Any], rows: int, seconds: float) -> None:
        """Record a batch that was answered. Called on the request path: it only appends.

        Args:
            parts: the requests' features, in order.
            results: for each request its predictions, or an error.
            rows: of all requests.
            seconds: that the call of the model took.
        """
        waiting = self._added - self._taken + rows
        if waiting > self._most:
            self._dropped += rows
            return
        share = 0 if self._log is None else self._log.draw_share()
        batch = make_monitoring_batch(model, parts, results, seconds, time.time(), share=share)
        if batch is None:
            return
        self._added += len(batch.predictions)
        self._queue.append(batch)
        if waiting >= self._rows_at_once and not self._wake.is_set():
            self._wake.set()

    def refuse(self, version: str | None, error: InputError) -> None:
        """Record a request that did not fit the schema."""
        # The error itself would keep the request's body in memory, by the frames of its traceback.
        self._refusals.append((version or "unsaved", time.time(), error.found))

    def start(self) -> None:
        if self._writer is not None:
            self._writer.start()
        self._thread.start()
        atexit.register(_stop_recorder, weakref.ref(self))  # a program that embeds the model may never close it

    def stop(self) -> None:
        """Write what is there."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(PATIENCE)
        if self._writer is not None:
            self._writer.stop(PATIENCE)

    def watch(self, model: RecordedModel) -> None:
        """Compare with the baseline of a model that answers from now on."""
        version = model.version or "unsaved"
        if version in self._windows.baselines:
            return
        baseline = model.baseline or Baseline()
        if self.settings.tests is None:
            baseline = Baseline(rows=baseline.rows)
        columns = len(model.feature_names)
        self._most = max(1_000, MOST_CELLS // max(1, columns))
        self._rows_at_once = max(256, CELLS_AT_ONCE // max(16, columns))
        self._fields[version] = frozenset((*model.feature_names, "inputs", "keys"))
        self._windows.baselines[version] = baseline
        self.metrics.watch(version, baseline)

    def on_close(self, call: Callable[[str], None]) -> None:
        """Call a function with the name of each window that has ended."""
        self._windows.on_close = call

    def current(self) -> list[Counts]:
        """The counts of windows that are open, and of closed ones that are remembered."""
        with self._lock:
            return self._windows.list_counts()

    def baselines(self) -> dict[str, Baseline]:
        """The baseline of each version that answered."""
        return dict(self._windows.baselines)

    def look(self) -> None:
        """Count and log new rows, and write the results."""
        now = time.time()
        self._drain(now)
        with self._lock:
            if self._log is not None:
                self._log.flush()
                self._log.follow_rate(self._added - self._rated, max(TICK, now - self._rated_at))
                self._rated, self._rated_at = self._added, now
            self._count_refusals()
            self._windows.close_past(now)
            self._windows.write_changed(now)
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self.metrics.dropped.inc(dropped)

    def _drain(self, now: float) -> None:
        """Count what has come since the last time, and gather the rows of the log."""
        passed, self._looked = max(0.0, now - self._looked), now
        batches = []
        while self._queue:
            batch = self._queue.popleft()
            self._taken += len(batch.predictions)
            batches.append(batch)
        for group in self._group_batches(batches):
            for part in _cut_recorder_batches(group, self._rows_at_once):
                self._limit.add_seconds(passed)
                answered = AnsweredRows(part)
                with self._lock:
                    self._count(answered)
                    if self._log is not None:
                        self._log.add(answered, passed)
                passed = 0.0
                self._stopping.wait(PAUSE)

    def write_waiting(self) -> None:
        """Write the pending records of the writer in this thread."""
        if self._writer is not None:
            self._writer.write_all()

    def work(self, *, is_due: bool, is_last: bool = False) -> None:
        """The thread's loop. An error is logged, and the loop continues.

        Args:
            is_due: look at all; else count only what has come.
            is_last: write everything: the server ends.
        """
        try:
            if is_due:
                self.look()
            else:
                self._drain(time.time())
            if is_last:
                with self._lock:
                    self._windows.write_changed(time.time(), is_last=True)
        except Exception:
            log.exception("%s: predictions could not be recorded", self.app)

    def _group_batches(self, batches: Iterable[RecordedBatch]) -> Iterable[list[RecordedBatch]]:
        """The batches of each model and window."""
        groups: dict[tuple[int, int], list[RecordedBatch]] = {}
        for batch in batches:
            groups.setdefault((id(batch.model), int(batch.at // self._seconds)), []).append(batch)
        return groups.values()

    def _count(self, answered: AnsweredRows) -> None:
        model, rows = answered.model, len(answered)
        version = model.version or "unsaved"
        live = self._windows.find(version, answered.batches[0].at)
        self.metrics.rows(version, rows)
        if not (live.counter.features or live.counter.predictions):
            live.counts.rows += rows
            return
        chosen = self._limit.choose_rows(rows, len(model.feature_names))
        live.counts.add_rows(rows, [(len(some), weight) for some, weight in chosen])
        for some, weight in chosen:
            is_whole = len(some) == rows
            if live.counter.features:
                features = answered.features
                live.counter.add_features(features if is_whole else take_rows(features, some), weight)
            if live.counter.predictions:
                own = answered.predictions if is_whole else _select_recorder_rows(answered.predictions, some)
                live.counter.add_answers(own, weight)
        self.metrics.uncounted.inc(rows - sum(len(some) for some, _ in chosen))

    def _count_refusals(self) -> None:
        while self._refusals:
            version, at, problems = self._refusals.popleft()
            live = self._windows.find(version, at)
            known = self._fields.get(version, ())
            names = ((problem.field or "inputs", problem.row) for problem in problems)
            seen = {(name if name in known else OTHER, row) for name, row in names}
            live.counts.refused += max(1, len({row for _, row in seen}))
            fields = Counter(name for name, _ in seen)
            for field, count in fields.items():
                live.counts.fields[field] = live.counts.fields.get(field, 0) + count
            self.metrics.refused(version, fields)

    def _count_lost_rows(self, rows: int) -> None:
        self._dropped += rows


def _run_recorder(recorder: weakref.ref[Recorder], stopping: threading.Event, wake: threading.Event) -> None:
    """Count when there is enough, which is then still in the processor's cache; once a second look at all.

    It ends with the recorder: a program may forget a model that it never closed.
    """
    due = monotonic() + TICK
    while (live := recorder()) is not None:
        is_last = stopping.is_set()
        is_due = is_last or monotonic() >= due
        if is_due or wake.is_set():
            wake.clear()
            live.work(is_due=is_due, is_last=is_last)
            due = monotonic() + TICK if is_due else due
        del live
        if is_last:
            return
        wake.wait(max(0.0, due - monotonic()))


def _stop_recorder(recorder: weakref.ref[Recorder]) -> None:
    live = recorder()
    if live is not None:
        live.stop()


def _select_recorder_rows(values: list[Any], rows: NDArray[np.int64]) -> Sequence[Any]:
    return itemgetter(*rows.tolist())(values) if len(rows) > 1 else [values[rows[0]]]


def _cut_recorder_batches(batches: list[RecordedBatch], most: int) -> Iterable[list[RecordedBatch]]:
    """The batches in pieces of about so many rows, which limits memory and waiting time."""
    piece: list[RecordedBatch] = []
    rows = 0
    for batch in batches:
        piece.append(batch)
        rows += len(batch.predictions)
        if rows >= most:
            yield piece
            piece, rows = [], 0
    if piece:
        yield piece
