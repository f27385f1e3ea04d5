"""Decides how long a batch waits for the clients that the previous batch answered.

Most clients send their next request as soon as they have an answer. If the next batch starts before that, the clients
split into two groups, and each group waits for the other group's call. After a useless wait, the next batches do not
wait, because requests that arrive at random times gain nothing from waiting.
"""

from __future__ import annotations

SHARE = 0.5
"""Maximum wait of a batch, as a share of the usual call."""
LONGEST = 0.005
"""Maximum seconds of the wait after the answers."""
SLACK = 0.001
"""Seconds added to twice the recent return time of clients: the resolution of uvloop's timers."""
FORGET = 0.9
"""Factor by which the recorded return time shrinks with each wait."""
ENOUGH = 0.75
"""Share of the expected rows from which a wait was useful."""
MAX_SKIPPED = 64
"""Maximum number of batches that do not wait after a useless wait. The number doubles each time."""


class ReturningClients:
    """The rows that are expected to return, and the time to wait for them."""

    def __init__(self) -> None:
        self.rows = 0
        """Rows of the last batch, plus the rows that waited when it ended."""
        self._answered = 0.0
        self._return = LONGEST
        self._skip = 0
        self._skipped = 0

    def note_answers(self, rows: int, now: float) -> None:
        """Record that `rows` rows are answered or waiting.

        Args:
            now: seconds of the event loop's clock.
        """
        self.rows = rows
        self._answered = now
        self._skipped = max(self._skipped - 1, 0)

    def remaining_wait(self, waiting: int, usual: float, now: float) -> float:
        """Seconds that the next batch waits; zero or negative for no wait.

        Args:
            waiting: rows that wait.
            usual: seconds of the model's usual call.
        """
        if self.rows <= waiting or self._skipped:
            return 0.0
        return self._answered + min(SHARE * usual, LONGEST, 2 * self._return + SLACK) - now

    def end_wait(self, waiting: int, expected_rows: int, now: float) -> None:
        """Record that a batch starts after a wait.

        Args:
            expected_rows: rows that it waited for: the expected rows, at most a full batch.
        """
        if waiting >= expected_rows:
            self._return = max(now - self._answered, FORGET * self._return)
        if waiting >= ENOUGH * expected_rows:
            self._skip = 0
        else:
            self._skip = self._skipped = min(2 * self._skip + 1, MAX_SKIPPED)
