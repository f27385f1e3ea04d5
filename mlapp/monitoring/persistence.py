"""An alarm is raised when the same thing is seen in so many of the last windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Any


class Persistence:
    """Watches windows in order.

    Args:
        rule: `2/3`: in two of the last three windows that could be tested.
    """

    def __init__(self, rule: str) -> None:
        needed, _, of = rule.partition("/")
        self._needed = int(needed)
        self._windows: deque[frozenset[Any]] = deque(maxlen=max(int(of), self._needed))

    def add(self, seen: Collection[Any]) -> set[Any]:
        """Take in what is seen in the next window; gives what is an alarm in it."""
        self._windows.append(frozenset(seen))
        everything = frozenset().union(*self._windows)
        return {key for key in everything if sum(key in window for window in self._windows) >= self._needed}
