"""How long a batch waits for the clients that the batch before it answered.

Most clients send their next request as soon as they have an answer. If the next batch leaves before they are back, they
fall into two groups, and each group waits for the other's call. A wait that does not bring them back is not repeated
soon: requests that arrive at any time gain nothing from it.
"""

from __future__ import annotations

SHARE = 0.5
"""Most of a call's usual time that a batch waits."""
LONGEST = 0.005
"""Most seconds of that wait, from when the clients were answered."""
SLACK = 0.001
"""Seconds added to twice the time in which the clients were back lately. uvloop rounds timers to it."""
FORGET = 0.9
"""Factor by which that time shrinks with each wait."""
ENOUGH = 0.75
"""Share of the wanted rows with which a wait has paid."""
MOST_SKIPPED = 64
"""Most batches that do not wait after a wait in vain; twice as many each time."""


class ReturningClients:
    """The rows that are expected back, and for how long."""

    def __init__(self) -> None:
        self.rows = 0
        """Rows of the last batch and those that waited at its end."""
        self._answered = 0.0
        self._return = LONGEST
        self._skip = 0
        self._skipped = 0

    def note_answers(self, rows: int, now: float) -> None:
        """The clients of so many rows have their answers, or wait already.

        Args:
            now: seconds of the event loop's clock.
        """
        self.rows = rows
        self._answered = now
        self._skipped = max(self._skipped - 1, 0)

    def remaining_wait(self, waiting: int, usual: float, now: float) -> float:
        """Seconds that a batch of a model that runs in its thread waits; not positive where it does not.

        Args:
            waiting: rows that wait.
            usual: seconds of the model's usual call.
        """
        if self.rows <= waiting or self._skipped:
            return 0.0
        return self._answered + min(SHARE * usual, LONGEST, 2 * self._return + SLACK) - now

    def end_wait(self, waiting: int, wanted: int, now: float) -> None:
        """A batch leaves that has waited.

        Args:
            wanted: rows for which it waited: those that are expected, or as many as a batch may have.
        """
        if waiting >= wanted:
            self._return = max(now - self._answered, FORGET * self._return)
        if waiting >= ENOUGH * wanted:
            self._skip = 0
        else:
            self._skip = self._skipped = min(2 * self._skip + 1, MOST_SKIPPED)
