"""Merges the small segments of a replica in a thread of its own, so that no new segment waits for a merge."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence

from mlapp.monitoring.place import Place
from mlapp.monitoring.segments import Segment, merge_segment_tables

log = logging.getLogger("mlapp.monitoring")
MERGE = 60
"""Number of segments of an hour that are merged into one."""
SMALL, SMALL_IN_MEMORY = 128 << 10, 256 << 10
"""Maximum bytes of a segment to merge: stored, and as a table. Segments that are merged are in memory together."""


class SegmentMerger:
    """Merges segments with contiguous numbers. One thread adds them, and another one merges them."""

    def __init__(self, place: Place, replica: str) -> None:
        self._place, self._replica = place, replica
        self._small: dict[str, list[Segment]] = {}
        # An attribute look-up, because gevent replaces it after the import.
        self._waiting: queue.SimpleQueue[tuple[str, list[Segment]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._merge_until_stopped, name="monitor-merger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience: float) -> None:
        """Merge the waiting segments, for at most `patience` seconds. The others stay as they are."""
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join(patience)

    def add_segment(self, folder: str, segment: Segment, size: int, table_size: int) -> None:
        """Note a segment that was written. Its number is larger than those of earlier ones.

        Args:
            folder: the version and hour, below the location's root.
            size: stored, in bytes.
            table_size: of the rows in memory, in bytes.
        """
        is_small = size < SMALL and table_size < SMALL_IN_MEMORY
        if is_small:
            self._small.setdefault(folder, []).append(segment)
        for other in list(self._small):
            # A large segment ends the contiguous numbers, and a new hour ends the earlier one.
            if other != folder or not is_small or len(self._small[other]) >= MERGE:
                small = self._small.pop(other)
                if len(small) > 1:
                    self._waiting.put((other, small))

    def _merge_until_stopped(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            folder, small = waiting
            try:
                self._merge_segments(folder, small)
            except Exception as error:  # a bucket's client can raise anything; the segments stay as they are
                log.info("%s: %d segments were not merged: %r", folder, len(small), error)

    def _merge_segments(self, folder: str, small: list[Segment]) -> None:
        """Merge segments into one, then delete them. If rows were deleted from one meanwhile, all stay unmerged."""
        keys = [self._place.key(folder, segment.name) for segment in small]
        contents = self._place.read_all(keys)
        if len(contents) < len(keys):
            return
        merged = Segment(self._replica, small[0].first, small[-1].last)
        key = self._place.key(folder, merged.name)
        self._place.storage.create_key(key, merge_segment_tables(contents))
        for old in keys if self._has_all_rows(folder, small) else [key]:
            self._place.storage.delete_prefix(old)

    def _has_all_rows(self, folder: str, small: Sequence[Segment]) -> bool:
        """Whether no rows were deleted from these segments.

        A segment from which rows were deleted exists also in its first generation if a writer repeated an attempt.
        """
        names = set(self._place.names(folder))
        changed = {
            segment.first
            for name in names
            if (segment := Segment.parse(name)) and segment.replica == self._replica and segment.generation
        }
        return all(segment.name in names and segment.first not in changed for segment in small)
