"""Limits the cells that are counted in a second. Of more rows, a random part is counted, and stands for the others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELLS_PER_SECOND = 262_144
"""4,096 rows of 64 columns."""
BURST = 20.0
"""Seconds of the rate that may be counted at once, after a quiet time."""
MOST = 256
"""Largest weight of a row."""


class CountLimit:
    """A token bucket of cells."""

    def __init__(self) -> None:
        self._tokens = CELLS_PER_SECOND * BURST
        self._random = np.random.default_rng()

    def add_seconds(self, seconds: float) -> None:
        """Let time pass."""
        self._tokens = min(self._tokens + seconds * CELLS_PER_SECOND, CELLS_PER_SECOND * BURST)

    def choose_rows(self, rows: int, columns: int) -> list[tuple[NDArray[np.int64], int]]:
        """Indexes of rows to count, and the number of rows that each stands for; together they stand for all rows.

        One row is drawn from each run of so many neighbors, so that clients that take turns are drawn alike.
        """
        cells = rows * max(1, columns)
        weight = 1
        if cells > self._tokens:
            weight = min(MOST, math.ceil(cells / max(self._tokens, 1.0)))
        self._tokens -= cells / weight
        if weight == 1:
            return [(np.arange(rows), 1)]
        drawn = rows // weight
        chosen = np.arange(drawn) * weight + self._random.integers(0, weight, drawn)
        rest = np.arange(drawn * weight, rows)
        return [(some, own) for some, own in ((chosen, weight), (rest, 1)) if len(some)]
