"""The open window of each serving version, and the counts of the last closed windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from mlapp.baseline import Baseline
from mlapp.monitoring.counts import Counter, Counts
from mlapp.monitoring.metrics import MonitorMetrics
from mlapp.monitoring.place import Window
from mlapp.monitoring.writer import Writer

TICK = 1.0
"""Seconds after a window's end until it is closed, in which its last rows are counted."""
PUBLISH = 15.0
"""Seconds between two updates of the series of Prometheus, under load."""
FEW = 5_000
"""Number of new rows below which the series are updated, and the counts written, at once."""
KEPT = 48
"""Number of closed windows that a server keeps in memory."""
REST = 10.0
"""Seconds between two writes of counts to a bucket, or of counts with many new rows to a folder."""


@dataclass
class LiveWindow:
    """The open window of a version, with its counts."""

    version: str
    counter: Counter
    counts: Counts
    window: Window
    changed: bool = False
    written: float = 0.0
    written_rows: int = 0
    published: float = 0.0
    published_rows: int = 0
    seen_rows: int = 0


class LiveWindows:
    """Opens, writes and closes windows. Not thread-safe.

    Args:
        writer: writes the counts; None keeps them in memory.
        is_local: the writer writes to a local folder.
    """

    def __init__(self, seconds: int, metrics: MonitorMetrics, writer: Writer | None, *, is_local: bool) -> None:
        self.baselines: dict[str, Baseline] = {}
        self.on_close: Callable[[str], None] | None = None
        """Receives the name of each window that has ended."""
        self._history: deque[Counts] = deque(maxlen=KEPT)
        self._open: dict[str, LiveWindow] = {}
        self._seconds = seconds
        self._metrics, self._writer, self._is_local = metrics, writer, is_local

    def open_window(self, version: str, at: float) -> LiveWindow:
        """The open window for rows of a time. Late rows of a closed window count in the open one."""
        window = Window.of(at, self._seconds)
        live = self._open.get(version)
        if live is None or live.window.since < window.since:
            if live is not None:
                self._close_window(live)
            counter = live.counter if live is not None else Counter(self.baselines.get(version) or Baseline())
            counts = Counts(version=version, since=window.since, until=window.until)
            live = self._open[version] = LiveWindow(version, counter, counts, window)
        live.changed = True
        return live

    def list_counts(self) -> list[Counts]:
        """The counts of the last closed windows, and of open ones."""
        return [*self._history, *map(_copy_live_window_counts, self._open.values())]

    def close_past(self, now: float) -> None:
        """Close the windows that have ended."""
        for live in [live for live in self._open.values() if live.window.until + TICK <= now]:
            self._close_window(live)
            del self._open[live.version]

    def write_changed(self, now: float, *, is_last: bool = False) -> None:
        """Publish and write the counts that have changed.

        Args:
            is_last: also write those that are not due.
        """
        for live in self._open.values():
            self._publish_series(live, now)
            is_small = self._is_local and live.counts.rows - live.written_rows < FEW
            if live.changed and (is_small or is_last or now - live.written >= REST):
                self._write_counts(live, _copy_live_window_counts(live))
                live.changed, live.written, live.written_rows = False, now, live.counts.rows

    def _publish_series(self, live: LiveWindow, now: float) -> None:
        """Update the Prometheus series, unless they were updated recently: it costs more than counting many rows."""
        rows, live.seen_rows = live.counts.rows - live.seen_rows, live.counts.rows
        if live.counts.rows == live.published_rows or (rows >= FEW and now - live.published < PUBLISH):
            return
        self._metrics.add_counts(live.version, live.counter)
        if now - live.published >= PUBLISH:
            live.published = now
            self._metrics.set_distances(live.version, live.counter.baseline, live.counter.list_column_counts())
        live.published_rows = live.counts.rows

    def _close_window(self, live: LiveWindow) -> None:
        counts = _copy_live_window_counts(live)
        self._history.append(counts)
        self._write_counts(live, counts)
        self._metrics.add_counts(live.version, live.counter)
        self._metrics.set_distances(live.version, live.counter.baseline, counts.columns)
        live.counter.reset_counts()
        if self.on_close is not None and (counts.rows or counts.refused):
            self.on_close(live.window.name)

    def _write_counts(self, live: LiveWindow, counts: Counts) -> None:
        if self._writer is not None and (counts.rows or counts.refused):
            self._writer.put_counts(
                f"counts/{live.version}/{live.window.name}", msgspec.json.encode(counts), counts.rows
            )


def _copy_live_window_counts(live: LiveWindow) -> Counts:
    return msgspec.structs.replace(
        live.counts, fields=dict(live.counts.fields), columns=live.counter.list_column_counts()
    )
