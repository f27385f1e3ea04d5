"""Limits the cells that are counted per second. Above the limit, a weighted random sample of the rows is counted."""

from __future__ import annotations

from random import Random

import numpy as np

CELLS_PER_SECOND = 65_536
"""1,024 rows of 64 columns."""
BURST = 8.0
"""Seconds of the rate that may be counted at once, after a quiet time: enough to see a small shift, and so few that a
load with pauses is counted as a steady one."""
CELLS_OF_BATCH = 65_536
"""Cells of one batch that are counted when rows are drawn: the event loop waits for the draw."""
MOST = 256
"""Largest weight of a row."""
FEW = 16
"""Runs of a batch up to which random numbers are drawn one by one."""
RESERVE = 4.0
"""Seconds at the current rate for which all rows could be counted, before all are counted again."""


class CountLimit:
    """A token bucket of cells. Use it in one thread.

    The weight of a row is a power of two, so that few weights occur. It follows the rate of the last second.

    Args:
        random: draws the rows.
    """

    def __init__(self, random: Random | None = None) -> None:
        self._tokens = CELLS_PER_SECOND * BURST
        self._weight = 1
        self._random = random or Random()
        self._cells = 0
        self._since: float | None = None
        self._runs: dict[int, tuple[int, int]] = {}

    def draw_rows(self, model: int, rows: int, columns: int, now: float) -> tuple[list[int] | None, int]:
        """The indexes of the rows of a batch to count, or None for all; and the number of rows that each stands for.

        With a weight of n, one row is drawn from each n consecutive rows of a model, so that clients that take turns
        are drawn equally often. Such a run of rows can continue in the next batch.

        Args:
            model: a number of the model.
            now: seconds since 1970.
        """
        cells = rows * max(1, columns)
        if self._since is None or not 0.0 <= now - self._since < 1.0:
            self._follow_rate(now)
        self._cells += cells
        if cells > self._weight * self._tokens:  # more than the last second let expect
            self._tokens = max(self._tokens, CELLS_PER_SECOND / 2)
            self._set_weight(max(2.0 * self._weight, cells / self._tokens))
        if self._weight > 1 and cells > self._weight * CELLS_OF_BATCH:
            self._set_weight(cells / CELLS_OF_BATCH)
        weight = self._weight
        self._tokens -= cells / weight
        return (None, 1) if weight == 1 else (self._draw_from_runs(model, rows, weight), weight)

    def return_rows(self, rows: int, columns: int) -> None:
        """Take back rows of the last calls of `draw_rows` that have not been answered."""
        self._cells -= rows * max(1, columns)
        self._tokens += rows * max(1, columns) / self._weight

    def _follow_rate(self, now: float) -> None:
        """Set the weight by the rate since the last call."""
        seconds = BURST if self._since is None else max(0.0, now - self._since)
        rate = self._cells / max(1.0, seconds)
        self._tokens = min(self._tokens + seconds * CELLS_PER_SECOND, BURST * CELLS_PER_SECOND)
        self._since, self._cells = now, 0
        is_enough = self._tokens >= rate * (1.0 if self._weight == 1 else RESERVE)
        self._set_weight(1.0 if is_enough else rate / CELLS_PER_SECOND)

    def _set_weight(self, least: float) -> None:
        weight = 1
        while weight < min(least, MOST):
            weight *= 2
        if weight != self._weight:
            self._weight = weight
            self._runs = {}

    def _draw_from_runs(self, model: int, rows: int, weight: int) -> list[int]:
        """Indexes of one row of each run; a run that has begun in an earlier batch continues.

        Args:
            weight: the length of a run, a power of two up to 256.
        """
        run, place = self._runs.get(model) or (0, self._random.randrange(weight))  # the next run, and its row
        if place >= rows:
            self._runs[model] = run - rows, place - rows
            return []
        count = (rows - run - 1) // weight + 1  # of runs that begin before the end
        if count <= FEW:
            drawn = []
            while place < rows:
                drawn.append(place)
                run += weight
                place = run + int(self._random.random() * weight)
            self._runs[model] = run - rows, place - rows
            return drawn
        draws = np.frombuffer(self._random.randbytes(count + 1), dtype=np.uint8) & np.uint8(weight - 1)
        places = np.arange(run, run + (count + 1) * weight, weight) + draws
        places[0] = place
        found: list[int] = places.tolist()
        if found[count - 1] >= rows:
            count -= 1
        self._runs[model] = run + count * weight - rows, found[count] - rows
        return found[:count]
