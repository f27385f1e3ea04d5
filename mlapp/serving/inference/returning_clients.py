"""Decides how long a batch waits for the clients that the previous batch answered.

Most clients send their next request as soon as they have an answer. If the next batch starts before that, they
split into two groups, and each group waits for the other's call. A useless wait is not repeated
soon, because requests that arrive at random times gain nothing from it.
"""

from __future__ import annotations

SHARE = 0.5
"""Maximum wait of a batch as a share of a call's usual time."""
LONGEST = 0.005
"""Maximum seconds of the wait after the answers."""
SLACK = 0.001
"""Seconds added to twice the recent return time of clients. uvloop rounds timers to this."""
FORGET = 0.9
"""Factor by which the return time shrinks with each wait."""
ENOUGH = 0.75
"""Share of the wanted rows from which a wait is useful."""
MOST_SKIPPED = 64
"""Maximum number of batches without a wait after a useless wait. The number doubles each time."""


class ReturningClients:
    """The rows that are expected to return, and the time to wait for them."""

    def __init__(self) -> None:
        self.rows = 0
        """Rows of the last batch, and those that waited when it ended."""
        self._answered = 0.0
        self._return = LONGEST
        self._skip = 0
        self._skipped = 0

    def note_answers(self, rows: int, now: float) -> None:
        """Record that the clients of `rows` rows have their answers, or are waiting.

        Args:
            now: seconds of the event loop's clock.
        """
        self.rows = rows
        self._answered = now
        self._skipped = max(self._skipped - 1, 0)

    def remaining_wait(self, waiting: int, usual: float, now: float) -> float:
        """Seconds that a batch of a model in a thread waits; not positive for no wait.

        Args:
            waiting: rows that wait.
            usual: seconds of the model's usual call.
        """
        if self.rows <= waiting or self._skipped:
            return 0.0
        return self._answered + min(SHARE * usual, LONGEST, 2 * self._return + SLACK) - now

    def end_wait(self, waiting: int, wanted: int, now: float) -> None:
        """Record that a batch starts after a wait.

        Args:
            wanted: rows that it waited for: the expected ones, or the maximum of a batch.
        """
        if waiting >= wanted:
            self._return = max(now - self._answered, FORGET * self._return)
        if waiting >= ENOUGH * wanted:
            self._skip = 0
        else:
            self._skip = self._skipped = min(2 * self._skip + 1, MOST_SKIPPED)
