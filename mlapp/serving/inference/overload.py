"""Detects that more requests arrive than a model can answer, and limits how long a request can wait."""

from __future__ import annotations

FEW = 8
"""Number of waiting requests that is never an overload if requests share calls."""
GROWTH = 1.25
"""Ratio of the rows that arrive during a call to the rows that it answers, above which the queue grows."""
CALLS = 2
"""Consecutive calls during which the queue grows, or does not grow, until `is_lasting` changes."""
PATIENCE = 2
"""Factor of `max_wait` that fewer than `FEW` requests can wait, unless one was refused recently."""
CALM = 4
"""Consecutive calls without a refusal, after which no refusal is recent. An empty queue has the same effect."""


class Overload:
    """The load of one model, watched from call to call.

    Args:
        max_wait: maximum expected seconds of waiting. It is `PATIENCE` times as long while fewer than `FEW` requests
            wait and none was refused recently: a few clients that each wait for their answers form no growing queue.

    Attributes:
        offered: rows that have arrived since the last call.
        is_lasting: whether more rows arrive than can be answered, over several calls.
    """

    def __init__(self, max_wait: float) -> None:
        self.offered = 0
        self.is_lasting = False
        self._max_wait = max_wait
        self._changed_calls = 0
        self._calls_since_refusal = CALM

    def compute_wait_limit(self, waiting: int) -> float:
        """The expected seconds of waiting above which a request is refused.

        Args:
            waiting: requests before it.
        """
        takes_turns = waiting < FEW and self._calls_since_refusal >= CALM
        return PATIENCE * self._max_wait if takes_turns else self._max_wait

    def note_refusal(self) -> None:
        self._calls_since_refusal = 0

    def note_call(self, rows: int, waiting: int, client_limit: int) -> None:
        """Update `is_lasting` after a call.

        Args:
            rows: that it answered.
            waiting: requests that wait now.
            client_limit: requests that can wait without counting as an overload.
        """
        grows = self.offered > GROWTH * rows and waiting >= client_limit
        self.offered = 0
        self._calls_since_refusal = self._calls_since_refusal + 1 if waiting else CALM
        self._changed_calls = self._changed_calls + 1 if grows != self.is_lasting else 0
        if self._changed_calls >= CALLS:
            self.is_lasting, self._changed_calls = grows, 0
