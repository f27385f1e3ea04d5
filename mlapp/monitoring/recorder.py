"""What a server keeps of its predictions: counts for drift, and rows for the log.

The request path appends one entry a batch to a queue, after the answers are sent. A thread takes them out once a
second. A full queue drops what comes, and counts it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import msgspec
import numpy as np

from mlapp.baseline import Baseline
from mlapp.baseline.predictions import split_predictions
from mlapp.config import Monitor
from mlapp.errors import InputError
from mlapp.monitoring import segments
from mlapp.monitoring.batch import RecordedBatch, make_batch
from mlapp.monitoring.counts import CHUNK, Counter, Counts
from mlapp.monitoring.metrics import MonitorMetrics
from mlapp.monitoring.place import Place, Window, new_replica, rate_of, seconds_of
from mlapp.monitoring.rules import Rules
from mlapp.monitoring.sampling import Sampler, hash_rows
from mlapp.monitoring.segments import hour_of, make_table
from mlapp.monitoring.writer import Writer

log = logging.getLogger("mlapp.monitoring")
TICK = 1.0
"""Seconds between two looks at the queue."""
MOST_CELLS = 2_000_000
"""Cells of features that may wait."""
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
    """A version that answers, and what was counted of it in the current window."""

    version: str
    counter: Counter
    counts: Counts
    window: Window
    changed: bool = False
    written: float = 0.0


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
        """Is told the name of each window that is over."""
        self._new_id = new_id
        self._seconds = seconds_of(settings.window)
        self._has_log = settings.logs != "off" and place is not None
        self._sampler = Sampler(rate_of(settings.rows) if settings.logs == "sample" else None)
        self._rules = Rules(settings.columns, app)
        self._queue: deque[RecordedBatch] = deque()
        self._refusals: deque[tuple[str, float, InputError]] = deque(maxlen=10_000)
        self._waiting = 0
        self._most = MOST_CELLS
        self._dropped = 0
        self._live: dict[str, _Live] = {}
        self._baselines: dict[str, Baseline] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._looked = time.time()
        self._writer = None if place is None else Writer(place, self.replica, self._lose)
        self._is_near = place is not None and place.folder() is not None
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def add(self, model: Any, parts: Sequence[Any], results: list[Any], rows: int, seconds: float) -> None:
        """Record a batch that was answered. Called on the request path: it only appends.

        Args:
            parts: the requests' features, in order.
            results: for each request its predictions, or an error.
            rows: of all requests.
            seconds: that the call of the model took.
        """
        if self._waiting + rows > self._most:
            self._dropped += rows
            return
        batch = make_batch(model, parts, results, seconds, time.time(), is_compact=not self._has_log)
        if batch is not None:
            self._waiting += len(batch.predictions)
            self._queue.append(batch)

    def refuse(self, version: str | None, error: InputError) -> None:
        """Record a request that did not fit the schema."""
        self._refusals.append((version or "unsaved", time.time(), error))

    def start(self) -> None:
        if self._writer is not None:
            self._writer.start()
        self._thread.start()

    def stop(self) -> None:
        """Write what is there."""
        self._stopping.set()
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
        """Count and log what has come since the last look."""
        now = time.time()
        passed, self._looked = max(0.0, now - self._looked), now
        batches = []
        while self._queue:
            batch = self._queue.popleft()
            self._waiting -= len(batch.predictions)
            batches.append(batch)
        with self._lock:
            for version, window, group in self._grouped(batches):
                self._record(version, window, group, passed)
            self._count_refusals()
            self._close_windows(now)
            self._put_counts(now)
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self.metrics.dropped.inc(dropped)

    def _run(self) -> None:
        while not self._stopping.wait(TICK):
            self._look_safely()
        self._look_safely()
        with self._lock:
            self._put_counts(time.time(), is_last=True)

    def _look_safely(self) -> None:
        try:
            self.look()
        except Exception:
            log.exception("%s: predictions could not be recorded", self.app)

    def _grouped(self, batches: Iterable[RecordedBatch]) -> Iterable[tuple[str, Window, list[RecordedBatch]]]:
        groups: dict[tuple[int, str, Window], list[RecordedBatch]] = {}
        for batch in batches:
            key = (id(batch.model), batch.model.version or "unsaved", Window.of(batch.at, self._seconds))
            groups.setdefault(key, []).append(batch)
        for (_, version, window), group in groups.items():
            yield version, window, group

    def _record(self, version: str, window: Window, group: list[RecordedBatch], passed: float) -> None:
        model = group[0].model
        predictions = list(chain.from_iterable(batch.predictions for batch in group))
        live = self._of(version, window)
        live.counts.rows += len(predictions)
        live.changed = True
        baseline = self._baselines.get(version)
        if baseline is not None:
            for parts in _some_at_a_time(group, len(model.feature_names)):
                live.counter.add_features(model.combine(parts))
            live.counter.add_predictions(split_predictions(predictions))
        self.metrics.rows(version, len(predictions))
        if self._has_log:
            self._log(version, group, predictions, passed)

    def _log(self, version: str, group: list[RecordedBatch], predictions: list[Any], passed: float) -> None:
        parts = [part for batch in group for part in batch.parts]
        requests = [part.id or self._new_id() for part in parts]
        counts = [part.rows for part in parts]
        chosen, weight = self._sampler.choose(hash_rows(requests, counts), passed)
        if not len(chosen) or self._writer is None:
            return
        kept: list[int] = chosen.tolist()
        ends = np.cumsum(counts)
        of: list[int] = np.searchsorted(ends, chosen, side="right").tolist()
        rows = [at - int(ends[part]) + counts[part] for at, part in zip(kept, of, strict=True)]
        names = [requests[part].decode("latin-1") for part in of]
        last = np.cumsum([len(batch.parts) for batch in group])
        batches = [group[at] for at in np.searchsorted(last, of, side="right").tolist()]
        times = [batch.at for batch in batches]
        own: dict[str, list[Any]] = {
            "id": [
                name if counts[part] == 1 else f"{name}#{row}" for name, part, row in zip(names, of, rows, strict=True)
            ],
            "request": names,
            "row": rows,
            "time": times,
            "version": [version] * len(kept),
            "latency": [batch.seconds for batch in batches],
            "weight": [weight] * len(kept),
        }
        keys = [_key_of(parts[part], row) for part, row in zip(of, rows, strict=True)]
        model = group[0].model
        used, place = np.unique(of, return_inverse=True)  # only their features are made a table of
        starts = np.concatenate([[0], np.cumsum([counts[part] for part in used[:-1]])]).astype(np.int64)
        features = model.combine([parts[part] for part in used])
        columns = columns_of(features, model.feature_names, starts[place] + np.array(rows))
        by_hour: dict[str, list[int]] = {}
        for at, moment in enumerate(times):
            by_hour.setdefault(hour_of(moment), []).append(at)
        table = make_table(columns, [predictions[at] for at in kept], own, keys, self._rules)
        for positions in by_hour.values():
            part = table if len(by_hour) == 1 else table.take(positions)
            content = segments.encode_table(part)
            self._writer.add_segment(version, times[positions[0]], content, part.num_rows)
        self.metrics.logged.inc(len(kept))

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
                fields[_top(field)] = fields.get(_top(field), 0) + 1
            for field, count in fields.items():
                live.counts.fields[field] = live.counts.fields.get(field, 0) + count
            self.metrics.refused(version, fields)

    def _of(self, version: str, window: Window) -> _Live:
        """The counts of a window. Rows of one that was closed a moment ago count in the one that is open."""
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
        live.counter.clear()
        if self.on_close is not None and (found.rows or found.refused):
            self.on_close(live.window.name)

    def _snapshot(self, live: _Live) -> Counts:
        return msgspec.structs.replace(live.counts, fields=dict(live.counts.fields), columns=live.counter.columns())

    def _put_counts(self, now: float, *, is_last: bool = False) -> None:
        for live in self._live.values():
            if not live.changed:
                continue
            found = self._snapshot(live)
            self.metrics.drift(live.version, self._baselines.get(live.version), found)
            if self._is_near or is_last or now - live.written >= FAR:
                self._write(live, found)
                live.changed, live.written = False, now

    def _write(self, live: _Live, found: Counts) -> None:
        if self._writer is not None and (found.rows or found.refused):
            self._writer.put_counts(f"counts/{live.version}/{live.window.name}", msgspec.json.encode(found))

    def _lose(self, rows: int) -> None:
        self._dropped += rows


def _some_at_a_time(group: Iterable[RecordedBatch], columns: int) -> Iterator[list[Any]]:
    """The parts of a group, as many at once as are counted at once: a table of all would not fit into a cache."""
    most = max(1, CHUNK // max(1, columns))
    parts: list[Any] = []
    rows = 0
    for batch in group:
        parts += batch.parts
        rows += len(batch.predictions)
        if rows >= most:
            yield parts
            parts, rows = [], 0
    if parts:
        yield parts


def columns_of(features: Any, names: Sequence[str], chosen: Any) -> dict[str, Any]:
    """Rows of features as columns; none where they are neither a table nor rows of numbers."""
    if hasattr(features, "columns"):
        some = features.iloc[chosen]
        return {str(name): some.iloc[:, at] for at, name in enumerate(some.columns)}
    if isinstance(features, np.ndarray) and features.dtype.kind in "biuf":
        some = features[chosen].reshape(len(chosen), -1)
        if some.shape[1] == len(names):
            return {name: some[:, at] for at, name in enumerate(names)}
        return {"features": some.tolist()}
    if isinstance(features, list):
        return {"features": [features[at] for at in chosen.tolist()]}
    return {}


def _key_of(part: Any, row: int) -> Any:
    keys = part.keys
    return keys[row] if isinstance(keys, list) else keys


def _top(field: str) -> str:
    """The column of a field's name."""
    return field[:100]
