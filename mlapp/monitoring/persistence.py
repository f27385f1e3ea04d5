"""Decides which findings persist: those that occur in enough of the last windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Any


class Persistence:
    """Tracks findings over windows in order.

    Args:
        rule: `2/3` means in two of the last three testable windows.
    """

    def __init__(self, rule: str) -> None:
        needed, _, total = rule.partition("/")
        self._needed = int(needed)
        self._windows: deque[frozenset[Any]] = deque(maxlen=max(int(total), self._needed))

    def add(self, findings: Collection[Any]) -> set[Any]:
        """Add the findings of the next window; returns those that are alarms."""
        self._windows.append(frozenset(findings))
        all_findings = frozenset().union(*self._windows)
        return {key for key in all_findings if sum(key in window for window in self._windows) >= self._needed}
