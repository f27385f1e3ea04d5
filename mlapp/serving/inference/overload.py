"""Whether more requests arrive than a model can answer, and how long a request can wait."""

from __future__ import annotations

FEW = 8
"""Requests that share calls and never count as an overload."""
GROWTH = 1.25
"""Rows that come during a call, for each row that it answers, from which on more come than can be answered."""
CALLS = 2
"""Calls in a row during which more, or no more, come than can be answered, until it is believed."""
PATIENCE = 2
"""Times `max_wait` that fewer than `FEW` requests can wait, until one is refused."""
CALM = 4
"""Calls in a row without a refusal, after which they can wait as long again. An empty queue has the same effect."""


class Overload:
    """The load of one model, watched from call to call.

    Args:
        max_wait: maximum expected seconds of waiting. `PATIENCE` times as long while fewer than `FEW` requests wait
            and none was refused recently: clients that take turns send their next request after an answer, so that
            their queue does not grow.

    Attributes:
        offered: rows that have come since the last call.
        is_lasting: whether more come than can be answered, and not only from clients that send a request after each
            answer.
    """

    def __init__(self, max_wait: float) -> None:
        self.offered = 0
        self.is_lasting = False
        self._max_wait = max_wait
        self._changed_calls = 0
        self._calls_since_refusal = CALM

    def longest_wait(self, waiting: int) -> float:
        """Expected seconds of waiting, beyond which a request is refused.

        Args:
            waiting: requests before it.
        """
        takes_turns = waiting < FEW and self._calls_since_refusal >= CALM
        return PATIENCE * self._max_wait if takes_turns else self._max_wait

    def note_refusal(self) -> None:
        self._calls_since_refusal = 0

    def note_call(self, rows: int, waiting: int, most: int) -> None:
        """Judge the load by a call that has ended.

        Args:
            rows: that it answered.
            waiting: requests that wait now.
            most: requests that can wait without counting as an overload.
        """
        grows = self.offered > GROWTH * rows and waiting >= most
        self.offered = 0
        self._calls_since_refusal = self._calls_since_refusal + 1 if waiting else CALM
        self._changed_calls = self._changed_calls + 1 if grows != self.is_lasting else 0
        if self._changed_calls >= CALLS:
            self.is_lasting, self._changed_calls = grows, 0
