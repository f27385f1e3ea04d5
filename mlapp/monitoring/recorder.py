"""Records a server's predictions: counts for drift, and rows for the log.

The request path gathers answered batches after their answers are sent. For a few hundred rows at once, it chooses those
to count and to log, and appends them to a queue as one entry. A thread takes the entries each half second, or earlier
if many rows wait. If the queue is full, new rows are dropped and their number is counted.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any

from mlapp.baseline import Baseline, describe_unwatched_features
from mlapp.config import Monitor
from mlapp.errors import InputError, Problem
from mlapp.monitoring.answer_counts import AnswerCounts
from mlapp.monitoring.answered_rows import AnsweredRows
from mlapp.monitoring.batch import RecordedBatch
from mlapp.monitoring.counts import Counts
from mlapp.monitoring.live_windows import TICK, LiveWindows
from mlapp.monitoring.metrics import MonitorMetrics
from mlapp.monitoring.place import Place, make_replica_name, parse_seconds
from mlapp.monitoring.recorded_model import RecordedModel
from mlapp.monitoring.row_choice import RowChoice
from mlapp.monitoring.row_log import RowLog
from mlapp.monitoring.writer import Writer

log = logging.getLogger("mlapp.monitoring")
MAX_CELLS = 2_000_000
"""Maximum cells of features in the queue."""
CELLS_AT_ONCE = 262_144
"""Cells that are counted at once. Fewer cost more per cell; more make requests wait longer."""
NEVER = float("inf")
LOG_TICK = 0.5
"""Seconds for which rows of the log are collected. A replica that is killed loses those, and those that are being
written: together at most one second."""
PAUSE = 0.0005
"""Seconds between two counts, in which the event loop gets the interpreter's lock."""
MAX_STOP_SECONDS = 5.0
"""Maximum seconds that a stopping server waits until its last rows are written."""


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
        is_local = place is not None and place.folder() is not None
        self._windows = LiveWindows(self._seconds, metrics, self._writer, is_local=is_local)
        self._counts = AnswerCounts(self._windows, metrics)
        self._notes: list[str] = []
        self._log: RowLog | None = None
        if settings.logs != "off" and self._writer is not None:
            self._log = RowLog(app, settings, self._writer, new_id)
        self._choice = RowChoice(self._seconds, self._log, counts=settings.tests is not None)
        self._queue: deque[RecordedBatch] = deque()
        self._refusals: deque[tuple[str, float, Sequence[Problem]]] = deque(maxlen=10_000)
        self._added = self._taken = 0  # each is changed by only one thread
        self._max_rows = MAX_CELLS
        self._rows_at_once = 1_000
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._last_drain = time.time()
        self._thread = threading.Thread(
            target=_run_recorder, args=(weakref.ref(self), self._stopping, self._wake), name="monitor", daemon=True
        )

    def record_batch(
        self, model: RecordedModel, parts: Sequence[Any], results: Sequence[Any], rows: int, seconds: float
    ) -> None:
        """Record a batch that was answered. Called on the request path, in the event loop.

        Args:
            parts: the requests' features, in order.
            results: for each request its predictions, or an error.
            rows: of all requests.
            seconds: that the call of the model took.
        """
        if rows > self._max_rows:
            self.metrics.dropped.inc(rows)  # larger than the whole queue
            return
        for batch in self._choice.add(model, parts, results, seconds, time.time()):
            self._append(batch)
        if self._log is not None and self._log.has_full_block and not self._wake.is_set():
            self._wake.set()

    def _append(self, batch: RecordedBatch) -> None:
        """Append rows for the thread, and wake it if there are many."""
        waiting = self._added - self._taken + batch.waiting
        if waiting > self._max_rows:
            self.metrics.dropped.inc(batch.rows)
            return
        self._added += batch.waiting
        self._queue.append(batch)
        if waiting >= self._rows_at_once and not self._wake.is_set():
            self._wake.set()

    def record_refusal(self, version: str | None, error: InputError) -> None:
        """Record a request that did not fit the schema."""
        # Not the error itself: the frames of its traceback would keep the request's body in memory.
        self._refusals.append((version or "unsaved", time.time(), error.found))

    def start(self) -> None:
        if self._writer is not None:
            self._writer.start()
        self._thread.start()
        atexit.register(_stop_recorder, weakref.ref(self))  # a program that embeds the model may never close it

    def stop(self) -> None:
        """Write all recorded rows, and stop."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(MAX_STOP_SECONDS)
        if self._writer is not None:
            self._writer.stop(MAX_STOP_SECONDS)

    def add_model(self, model: RecordedModel) -> None:
        """Compare predictions with the baseline of a model that answers from now on."""
        version = model.version or "unsaved"
        if version in self._windows.baselines:
            return
        baseline = model.baseline or Baseline()
        if self.settings.tests is None:
            baseline = Baseline(rows=baseline.rows)
        columns = len(model.feature_names)
        if warning := describe_unwatched_features(columns):
            self._notes.append(f"Version {version}: {warning}")
        self._max_rows = max(1_000, MAX_CELLS // max(1, columns))
        self._rows_at_once = max(256, CELLS_AT_ONCE // max(16, columns))
        self._counts.set_version_fields(version, frozenset((*model.feature_names, "inputs", "keys")))
        self._windows.baselines[version] = baseline
        self.metrics.publish_baseline(version, baseline)

    def on_close(self, call: Callable[[str], None]) -> None:
        """Call a function with the name of each window that has ended."""
        self._windows.on_close = call

    def list_counts(self) -> list[Counts]:
        """The counts of open windows, and of the last closed ones."""
        with self._lock:
            return self._windows.list_counts()

    def list_notes(self) -> list[str]:
        """A sentence for each version that has too many features to compare."""
        return list(self._notes)

    def baselines(self) -> dict[str, Baseline]:
        """The baseline of each version that answered."""
        return dict(self._windows.baselines)

    def record_and_write(self) -> None:
        """Count and log new rows, and write the results."""
        self._record_and_write(is_due=True, is_log_due=True)

    def _record_and_write(self, *, is_due: bool, is_log_due: bool) -> bool:
        now = time.time()
        self._drain(now)
        with self._lock:
            has_written = self._log is not None and self._log.flush(is_due=is_log_due)
            if is_due:
                while self._refusals:
                    self._counts.count_refused_request(*self._refusals.popleft())
                self._windows.close_past(now)
                self._windows.write_changed(now)
        return has_written

    def _drain(self, now: float) -> None:
        """Count the queued rows, and gather those to log."""
        passed, self._last_drain = max(0.0, now - self._last_drain), now
        rest = self._choice.choose_rest()
        batches = []
        while self._queue:
            batch = self._queue.popleft()
            self._taken += batch.waiting
            batches.append(batch)
        batches += rest
        if self._log is not None:
            self._log.pass_time(passed)
        for group in _group_recorder_batches(batches, self._seconds):
            for part in _cut_recorder_batches(group, self._rows_at_once):
                try:
                    with self._lock:
                        self._record_group(part)
                except Exception:  # caused by this part's values; the other parts must be counted all the same
                    log.exception("%s: predictions could not be recorded", self.app)
                    self._count_lost_rows(sum(batch.rows for batch in part))
                self._stopping.wait(PAUSE)  # a sleep that ends when the server stops

    def _record_group(self, batches: list[RecordedBatch]) -> None:
        """Count and log batches of one model, window and weight."""
        counted = AnsweredRows(batches[0].model, [batch.counted for batch in batches])
        self._counts.count_batches(batches, counted, batches[0].weight)
        logged = [batch for batch in batches if batch.logged is not None]
        if self._log is None or not logged:
            return
        pieces = [batch.logged.rows for batch in logged if batch.logged is not None]
        are_counted = len(logged) == len(batches) and all(
            batch.counted is piece for batch, piece in zip(batches, pieces, strict=True)
        )
        self._log.add(counted if are_counted else AnsweredRows(batches[0].model, pieces), logged)

    def write_waiting(self) -> None:
        """Write the pending records of the writer in this thread."""
        if self._writer is not None:
            self._writer.write_all()

    @property
    def has_log(self) -> bool:
        """Whether rows are logged."""
        return self._log is not None

    def run_turn(self, *, is_due: bool, is_log_due: bool, is_last: bool = False) -> bool:
        """Do one turn of the thread's loop: count the queued rows, and write full segments. An error is logged, and the
        loop continues.

        Args:
            is_due: also close windows and write counts.
            is_log_due: also write rows of the log that do not fill a segment.
            is_last: write everything, because the server stops.

        Returns:
            Whether the collected rows of the log were written.
        """
        has_written = False
        try:
            has_written = self._record_and_write(is_due=is_due, is_log_due=is_log_due)
            if is_last:
                with self._lock:
                    self._windows.write_changed(time.time(), is_last=True)
        except Exception:  # monitoring must never stop serving, and the next turn may succeed
            log.exception("%s: predictions could not be recorded", self.app)
        return has_written

    def _count_lost_rows(self, rows: int) -> None:
        self.metrics.dropped.inc(rows)


def _run_recorder(recorder: weakref.ref[Recorder], stopping: threading.Event, wake: threading.Event) -> None:
    """Count when many rows wait, while they are still in the processor's cache; write the log each half second, and do
    all work each second. These periods include the turns.

    It ends when the recorder is garbage, because a program may drop a model without closing it.
    """
    due, log_due = monotonic() + TICK, monotonic() + LOG_TICK
    while (live := recorder()) is not None:
        began, is_last = monotonic(), stopping.is_set()
        is_due, is_log_due = is_last or began >= due, is_last or began >= log_due
        if is_due or is_log_due or wake.is_set():
            wake.clear()
            has_written = live.run_turn(is_due=is_due, is_log_due=is_log_due, is_last=is_last)
            if is_due:
                due = began + TICK
            if is_log_due or has_written:
                log_due = began + (LOG_TICK if live.has_log else NEVER)
        del live
        if is_last:
            return
        wake.wait(max(0.0, min(due, log_due) - monotonic()))


def _stop_recorder(recorder: weakref.ref[Recorder]) -> None:
    live = recorder()
    if live is not None:
        live.stop()


def _group_recorder_batches(batches: Iterable[RecordedBatch], seconds: int) -> Iterable[list[RecordedBatch]]:
    """The batches of each model, window of so many seconds, and weight."""
    groups: dict[tuple[int, int, int], list[RecordedBatch]] = {}
    for batch in batches:
        groups.setdefault((id(batch.model), int(batch.at // seconds), batch.weight), []).append(batch)
    return groups.values()


def _cut_recorder_batches(batches: list[RecordedBatch], most: int) -> Iterable[list[RecordedBatch]]:
    """The batches in pieces of about `most` waiting rows, to limit memory and waiting time."""
    piece: list[RecordedBatch] = []
    rows = 0
    for batch in batches:
        piece.append(batch)
        rows += batch.waiting
        if rows >= most:
            yield piece
            piece, rows = [], 0
    if piece:
        yield piece
