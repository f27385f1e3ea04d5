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
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

import msgspec
import numpy as np

from mlapp.baseline import Baseline
from mlapp.baseline.predictions import split_predictions
from mlapp.config import Monitor
from mlapp.errors import InputError
from mlapp.monitoring.batch import RecordedBatch, make_batch
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.counts import Counter, Counts
from mlapp.monitoring.log_rows import Answered, columns_of, flatten, make_log_table, new_ids
from mlapp.monitoring.metrics import MonitorMetrics
from mlapp.monitoring.place import Place, Window, new_replica, rate_of, seconds_of
from mlapp.monitoring.sampling import Sampler, hash_rows
from mlapp.monitoring.segments import encode_tables, hour_of
from mlapp.monitoring.writer import Writer

log = logging.getLogger("mlapp.monitoring")
TICK = 1.0
"""Seconds between two looks at the queue."""
MOST_CELLS = 2_000_000
"""Cells of features that may wait."""
CELLS_AT_ONCE = 131_072
"""Cells that are counted at once."""
GATHERED = 4
"""As many times these may be gathered for one segment of the log."""
PAUSE = 0.0005
"""Seconds between two of these, in which the event loop gets the interpreter."""
DISTANCES = 5.0
"""Seconds between two measurements of the distances that Prometheus sees."""
OTHER = "other"
"""The series of refused fields that no feature has: clients name them."""
KEPT = 48
"""Windows that a server remembers."""
FAR = 10.0
"""Seconds between two writes of the counts to a bucket; to a folder they are written at every look."""
PATIENCE = 5.0
"""Seconds that the end of a server may wait for its last rows to be written."""


class RecordedPart(Protocol):
    """A request's features."""

    rows: int
    id: bytes | None
    keys: Any


class RecordedModel(Protocol):
    """A model that answers."""

    @property
    def version(self) -> str | None: ...
    @property
    def feature_names(self) -> list[str]: ...
    @property
    def baseline(self) -> Baseline | None: ...
    def combine(self, parts: list[Any]) -> Any: ...
    def join_parts(self, parts: Sequence[Any]) -> Sequence[Any]: ...


@dataclass
class _Live:
    """A served version, with its counts in the current window."""

    version: str
    counter: Counter
    counts: Counts
    window: Window
    changed: bool = False
    written: float = 0.0
    measured: float = 0.0


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
        self.replica = replica or new_replica()
        self.history: deque[Counts] = deque(maxlen=KEPT)
        """Counts of closed windows, of this process."""
        self.on_close: Callable[[str], None] | None = None
        """Receives the name of each window that has ended."""
        self._new_id = new_id
        self._seconds = seconds_of(settings.window)
        self._has_log = settings.logs != "off" and place is not None
        self._sampler = Sampler(rate_of(settings.rows) if settings.logs == "sample" else None)
        self._rules = ColumnPrivacy(settings.columns, app)
        self._queue: deque[RecordedBatch] = deque()
        self._refusals: deque[tuple[str, float, InputError]] = deque(maxlen=10_000)
        self._added = self._taken = 0  # each is changed by one thread alone
        self._most = MOST_CELLS
        self._rows_at_once = 1_000
        self._tables: list[tuple[str, float, Any]] = []
        self._fields: dict[str, frozenset[str]] = {}
        self._dropped = 0
        self._live: dict[str, _Live] = {}
        self._baselines: dict[str, Baseline] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._looked = time.time()
        self._writer = None if place is None else Writer(place, self.replica, self._lose)
        self._is_near = place is not None and place.folder() is not None
        self._thread = threading.Thread(
            target=_run, args=(weakref.ref(self), self._stopping, self._wake), name="monitor", daemon=True
        )

    def add(self, model: Any, parts: Sequence[Any], results: list[Any], rows: int, seconds: float) -> None:
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
        batch = make_batch(model, parts, results, seconds, time.time(), is_compact=not self._has_log)
        if batch is None:
            return
        self._added += len(batch.predictions)
        self._queue.append(batch)
        if waiting >= self._rows_at_once and not self._wake.is_set():
            self._wake.set()

    def refuse(self, version: str | None, error: InputError) -> None:
        """Record a request that did not fit the schema."""
        self._refusals.append((version or "unsaved", time.time(), error))

    def start(self) -> None:
        if self._writer is not None:
            self._writer.start()
        self._thread.start()
        atexit.register(_stop, weakref.ref(self))  # a program that embeds the model may never close it

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
        if version in self._baselines:
            return
        baseline = model.baseline or Baseline()
        if self.settings.tests is None:
            baseline = Baseline(rows=baseline.rows)
        columns = len(model.feature_names)
        self._most = max(1_000, MOST_CELLS // max(1, columns))
        self._rows_at_once = max(256, CELLS_AT_ONCE // max(16, columns))
        self._fields[version] = frozenset((*model.feature_names, "inputs", "keys"))
        self._baselines[version] = baseline
        self.metrics.watch(version, baseline)

    def current(self) -> list[Counts]:
        """The counts of windows that are open, and of closed ones that are remembered."""
        with self._lock:
            return [*self.history, *(self._snapshot(live) for live in self._live.values())]

    def baselines(self) -> dict[str, Baseline]:
        """The baseline of each version that answered."""
        return dict(self._baselines)

    def look(self) -> None:
        """Count and log new rows, and write the results."""
        now = time.time()
        self._drain(now)
        with self._lock:
            self._flush_logs()
            self._count_refusals()
            self._close_windows(now)
            self._put_counts(now)
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
        for version, window, group in self._grouped(batches):
            for part in _cut(group, self._rows_at_once):
                with self._lock:
                    self._record(version, window, part, passed)
                passed = 0.0
                self._stopping.wait(PAUSE)

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
                    self._put_counts(time.time(), is_last=True)
        except Exception:
            log.exception("%s: predictions could not be recorded", self.app)

    def _grouped(self, batches: Iterable[RecordedBatch]) -> Iterable[tuple[str, Window, list[RecordedBatch]]]:
        groups: dict[tuple[int, int], list[RecordedBatch]] = {}
        for batch in batches:
            groups.setdefault((id(batch.model), int(batch.at // self._seconds)), []).append(batch)
        for group in groups.values():
            yield group[0].model.version or "unsaved", Window.of(group[0].at, self._seconds), group

    def _record(self, version: str, window: Window, group: list[RecordedBatch], passed: float) -> None:
        model = group[0].model
        answered = flatten(group)
        live = self._of(version, window)
        live.counts.rows += len(answered)
        live.changed = True
        self.metrics.rows(version, len(answered))
        features = None
        if version in self._baselines:
            features = model.combine(answered.parts)
            live.counter.add_features(features)
            live.counter.add_predictions(split_predictions(answered.predictions))
        if self._has_log:
            self._log(model, version, features, answered, passed)

    def _log(self, model: Any, version: str, features: Any, answered: Answered, passed: float) -> None:
        requests = new_ids(answered.parts, self._new_id)
        if self._sampler.keeps_all:
            chosen, weight = np.arange(len(answered)), 1.0
        else:
            chosen, weight = self._sampler.choose(hash_rows(requests, answered.counts), passed)
        if not len(chosen) or self._writer is None:
            return
        if features is None:
            features = model.combine(answered.parts)
        columns = columns_of(features, model.feature_names, chosen, len(answered))
        table = make_log_table(version, answered, requests, chosen, weight, columns, self._rules)
        self._tables.append((version, float(answered.times[0]), table))
        self.metrics.logged.inc(len(chosen))
        if sum(table.num_rows for *_, table in self._tables) >= self._rows_at_once * GATHERED:
            self._flush_logs()

    def _flush_logs(self) -> None:
        """Give the writer the rows of the log that were gathered: a segment for each version and hour."""
        groups: dict[tuple[str, str], list[tuple[float, Any]]] = {}
        for version, at, table in self._tables:
            groups.setdefault((version, hour_of(at)), []).append((at, table))
        self._tables.clear()
        for (version, _), found in groups.items():
            tables = [table for _, table in found]
            content = encode_tables(tables)
            assert self._writer is not None
            self._writer.add_segment(version, found[0][0], content, sum(table.num_rows for table in tables))

    def _count_refusals(self) -> None:
        while self._refusals:
            version, at, error = self._refusals.popleft()
            live = self._of(version, Window.of(at, self._seconds))
            seen = {(problem.field or "inputs", problem.row) for problem in error.problems}
            refused = max(1, len({row for _, row in seen}))
            live.counts.refused += refused
            live.changed = True
            fields: dict[str, int] = {}
            for field, _ in seen:
                name = field if field in self._fields.get(version, ()) else OTHER
                fields[name] = fields.get(name, 0) + 1
            for field, count in fields.items():
                live.counts.fields[field] = live.counts.fields.get(field, 0) + count
            self.metrics.refused(version, fields)

    def _of(self, version: str, window: Window) -> _Live:
        """The counts of a window. Rows of a window that was just closed count in the open one."""
        live = self._live.get(version)
        if live is None or live.window.since < window.since:
            if live is not None:
                self._close(live)
            counter = live.counter if live is not None else Counter(self._baselines.get(version) or Baseline())
            counts = Counts(version=version, since=window.since, until=window.until)
            live = self._live[version] = _Live(version, counter, counts, window)
        return live

    def _close_windows(self, now: float) -> None:
        for live in [live for live in self._live.values() if live.window.until + TICK <= now]:
            self._close(live)
            del self._live[live.version]

    def _close(self, live: _Live) -> None:
        found = self._snapshot(live)
        self.history.append(found)
        self._write(live, found)
        self.metrics.count(live.version, live.counter)
        self.metrics.distances(live.version, live.counter.baseline, found.columns)
        live.counter.clear()
        if self.on_close is not None and (found.rows or found.refused):
            self.on_close(live.window.name)

    def _snapshot(self, live: _Live) -> Counts:
        return msgspec.structs.replace(live.counts, fields=dict(live.counts.fields), columns=live.counter.columns())

    def _put_counts(self, now: float, *, is_last: bool = False) -> None:
        for live in self._live.values():
            if not live.changed:
                continue
            self.metrics.count(live.version, live.counter)
            if now - live.measured >= DISTANCES:
                live.measured = now
                self.metrics.distances(live.version, live.counter.baseline, live.counter.columns())
            if self._is_near or is_last or now - live.written >= FAR:
                self._write(live, self._snapshot(live))
                live.changed, live.written = False, now

    def _write(self, live: _Live, found: Counts) -> None:
        if self._writer is not None and (found.rows or found.refused):
            self._writer.put_counts(f"counts/{live.version}/{live.window.name}", msgspec.json.encode(found))

    def _lose(self, rows: int) -> None:
        self._dropped += rows


def _run(recorder: weakref.ref[Recorder], stopping: threading.Event, wake: threading.Event) -> None:
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


def _stop(recorder: weakref.ref[Recorder]) -> None:
    live = recorder()
    if live is not None:
        live.stop()


def _cut(batches: list[RecordedBatch], most: int) -> Iterable[list[RecordedBatch]]:
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
