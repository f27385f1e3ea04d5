"""Writes a replica's records in a thread of its own, so that no request waits for a bucket."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from mlapp.errors import MlappError
from mlapp.monitoring.place import Place
from mlapp.monitoring.segment_merger import SegmentMerger
from mlapp.monitoring.segments import Segment, format_segment_hour

log = logging.getLogger("mlapp.monitoring")
MOST_BYTES = 16 << 20
"""Maximum bytes of pending rows of the log, and of pending counts. Beyond it, new rows of the log and the counts of the
oldest windows are dropped."""
COMPLAIN = 60.0
"""Seconds between two warnings about a place that cannot be reached."""


class Writer:
    """Writes segments of the log, and the newest counts of each window.

    Args:
        dropped: receives the number of rows that are lost because the place cannot be written.
        written: receives the number of rows of each written segment.
    """

    def __init__(
        self,
        place: Place,
        replica: str,
        dropped: Callable[[int], None],
        written: Callable[[int], object] = lambda rows: None,
    ) -> None:
        self._place, self._replica, self.lose_rows, self._report_written = place, replica, dropped, written
        self._segments: deque[tuple[str, float, bytes | list[Any], int, int, int]] = deque()
        self._bytes = 0
        self._counts: dict[str, tuple[bytes, int]] = {}
        self._written: dict[str, str] = {}
        self._counts_number = self._segment_number = 0
        self._merger = SegmentMerger(place, replica)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._complained = -COMPLAIN
        self._thread = threading.Thread(target=self._write_until_stopped, name="monitor-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._merger.start()

    def stop(self, patience: float) -> None:
        """Write pending records, for at most `patience` seconds."""
        deadline = time.monotonic() + patience
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(patience)
        self._merger.stop(max(0.0, deadline - time.monotonic()))

    def add_segment(
        self, version: str, time: float, content: bytes | list[Any], rows: int, table_size: int = 0
    ) -> None:
        """Write rows of the log, all of one version and one hour.

        Args:
            content: of the file, in one piece or several.
            table_size: of the rows in memory, in bytes, if they take more than the file.
        """
        size = len(content) if isinstance(content, bytes) else sum(memoryview(piece).nbytes for piece in content)
        with self._lock:
            if self._bytes + size > MOST_BYTES:
                self.lose_rows(rows)
                return
            self._bytes += size
            self._segments.append((version, time, content, rows, size, table_size))
        self._wake.set()

    def put_counts(self, folder: str, content: bytes, rows: int) -> None:
        """Write the counts of a window, replacing earlier ones.

        Args:
            folder: the window's folder, below the location's root.
            rows: that were counted.
        """
        with self._lock:
            self._counts[folder] = content, rows
            self._drop_oldest_counts()
        self._wake.set()

    def _drop_oldest_counts(self) -> None:
        size = sum(len(content) for content, _ in self._counts.values())
        while size > MOST_BYTES and len(self._counts) > 1:
            content, rows = self._counts.pop(next(iter(self._counts)))
            size -= len(content)
            self.lose_rows(rows)

    def _write_until_stopped(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            is_last = self._stopping
            try:
                self.write_all()
            except Exception as error:  # a bucket's client can raise anything, and no later window may be lost
                self._warn_of_unwritten_log(error)
                if not self._stopping:
                    time.sleep(1.0)
                    self._wake.set()
            if is_last:
                return

    def write_all(self) -> None:
        """Write all pending records: first the segments, because a kill loses those that wait."""
        while self._segments:
            version, at, pieces, rows, size, table_size = self._segments[0]
            self._write_segment(version, at, pieces, size, table_size)
            self._report_written(rows)
            del pieces
            with self._lock:
                self._segments.popleft()
                self._bytes -= size
        with self._lock:
            counts, self._counts = self._counts, {}
        for folder, (content, _) in counts.items():
            try:
                self._write_counts(folder, content)
            except BaseException:  # the next call writes these counts
                with self._lock:  # newer counts may have arrived
                    self._counts = {**counts, **self._counts}
                    self._drop_oldest_counts()
                raise

    def _write_counts(self, folder: str, content: bytes) -> None:
        self._counts_number += 1
        key = self._place.key(folder, f"{self._replica}-{self._counts_number:09}.json")
        self._place.storage.create_key(key, content)
        old = self._written.get(folder)
        self._written[folder] = key
        if old is not None:
            self._place.storage.delete_prefix(old)
        while len(self._written) > 100:
            del self._written[next(iter(self._written))]

    def _write_segment(self, version: str, at: float, content: bytes | list[Any], size: int, table_size: int) -> None:
        folder = f"log/{version}/{format_segment_hour(at)}"
        segment = Segment(self._replica, self._segment_number + 1, self._segment_number + 1)
        self._place.storage.create_key(self._place.key(folder, segment.name), content)
        self._segment_number += 1  # only now: an attempt whose answer was lost is repeated under the same name
        self._merger.add_segment(folder, segment, size, table_size)

    def _warn_of_unwritten_log(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._complained >= COMPLAIN:
            self._complained = now
            reason = error.what if isinstance(error, MlappError) else repr(error)
            log.warning(
                "The prediction log cannot be written; rows beyond %d MB are lost: %s", MOST_BYTES >> 20, reason
            )
