"""Measures the speed of a model or a feature_loader, to decide whether a call may block the event loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

FAST = 0.005
"""Seconds that a call may block the event loop."""
SLOW = 0.02
"""Seconds of the usual call from which calls run in a thread."""
STUCK = 0.1
"""Seconds of a single call from which the next calls run in a thread."""
RECENT = 5
"""Number of recent calls whose median is the usual call. A busy machine can delay any single call."""
CALM = 20
"""Number of fast calls after which calls leave the thread again; doubled by each relapse that follows soon."""
REPAID = 0.001
"""Seconds of a long call that each fast call makes up for: after 2 s in the event loop, 2,000 fast ones must follow."""


def find_median_latency(values: Iterable[float]) -> float:
    """The median. `statistics.median` takes as long as decoding a request."""
    ordered = sorted(values)
    return (ordered[len(ordered) // 2] + ordered[(len(ordered) - 1) // 2]) / 2


class Latency:
    """The measured calls. A model counts as slow until its first call is measured, during warm-up."""

    def __init__(self) -> None:
        self.is_fast = False
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._sizes: deque[tuple[int, float]] = deque(maxlen=RECENT)
        self.usual_seconds = 0.0
        """Seconds of the usual call."""
        self._row_seconds = 0.0
        self._calm = CALM
        self._needed = CALM

    def expects_fast(self, rows: int) -> bool:
        """Whether a call with so many rows is expected to be fast, by the usual call and the cost per row."""
        return self.is_fast and max(self.usual_seconds, self._row_seconds * rows) <= FAST

    def estimate_seconds(self, rows: int) -> float:
        """Expected seconds of a call with this number of rows: the median of the largest recent calls, scaled.

        For a much larger call the estimate is doubled, because the cost of a row is not known there.
        """
        if not self._sizes or not rows:
            return 0.0
        largest = max(self._sizes)[0]
        seconds = find_median_latency(seconds for count, seconds in self._sizes if count == largest)
        return max(self.usual_seconds, seconds * min(rows / largest, 2.0))

    def add_call(self, seconds: float, rows: int) -> None:
        """Take a measured call into account."""
        self._recent.append(seconds)
        self._sizes.append((max(rows, 1), seconds))
        self.usual_seconds = find_median_latency(self._recent)
        row_seconds = seconds / max(rows, 1)
        # Only large batches show the cost per row: in small ones, the cost of the call dominates.
        if not self._row_seconds or self.usual_seconds > FAST:
            self._row_seconds = row_seconds
        elif seconds <= FAST:
            self._row_seconds = min(row_seconds, self._row_seconds)
        if seconds >= STUCK or self.usual_seconds >= SLOW:
            if self.is_fast:
                soon = self._calm < 10 * self._needed
                self._needed = max(min(self._needed * 2, 100_000) if soon else CALM, round(seconds / REPAID))
            self.is_fast, self._calm = False, 0
        elif seconds <= FAST:
            self._calm += 1
            self.is_fast = self.is_fast or self._calm >= self._needed
