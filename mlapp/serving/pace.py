"""How fast the model is, as measured: whether a call may run in the event loop or needs a thread."""

from __future__ import annotations

FAST = 0.005
"""Seconds that a call may hold up the event loop."""
SLOW = 0.02
"""Seconds from which one call alone sends the next ones to a thread."""
CALM = 200
"""Fast calls in a row after which the thread is left again."""


class Pace:
    """Decides by measurement. A model is taken for slow until its first call, the one that warms it, was timed."""

    def __init__(self) -> None:
        self.is_fast = False
        self._call = 0.0
        self._row = 0.0
        self._calm = CALM
        self._needed = CALM

    def expects_fast(self, rows: int) -> bool:
        """Whether a call with so many rows will be short: by the mean call, and by the most expensive row."""
        return self.is_fast and max(self._call, self._row * rows) <= FAST

    def add(self, seconds: float, rows: int) -> None:
        """Take a measured call into account."""
        a_row = seconds / max(rows, 1)
        self._call = seconds if not self._call else 0.9 * self._call + 0.1 * seconds
        # The cost of a row is best seen in large batches; in small ones it is mostly the cost of the call.
        self._row = min(a_row, self._row) if self._row and seconds <= FAST else a_row
        if seconds >= SLOW:
            if self.is_fast:
                self._needed = min(self._needed * 2, 100_000)
            self.is_fast, self._calm = False, 0
        elif seconds <= FAST:
            self._calm += 1
            self.is_fast = self.is_fast or self._calm >= self._needed
