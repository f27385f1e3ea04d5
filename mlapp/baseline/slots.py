"""Where the counts of several columns lie in one array, and the table that finds the slot of a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlapp.baseline.bins import KEYS, build_slot_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlapp.baseline.baseline import Column

SPECIAL = 3
"""Slots after a column's bins: for a number below, above and missing; for a category new, (unused) and missing."""


class SlotLayout:
    """The slots of columns, which never change: all windows of a version share them, and all forked workers.

    Attributes:
        columns: by name.
        first: column → its first slot; `size` slots in all.
        numbers: the names of the columns of numbers, with `centers`, and `steps` to round to (0: none).
        table: raw upper bits (see `mlapp.baseline.bins`) of each column of numbers → slot; `offsets` of the columns.
        codes: column of categories → value → its slot after the first.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = {column.name: column for column in columns}
        self.first: dict[str, int] = {}
        self.size = 0
        for column in columns:
            self.first[column.name] = self.size
            self.size += count_slots(column)
        numbers = [column for column in columns if column.kind == "number"]
        self.numbers = [column.name for column in numbers]
        self.centers = np.array([column.center for column in numbers])
        self.steps = np.array([column.step or 0.0 for column in numbers])
        self.table: NDArray[Any] = np.empty(len(numbers) * KEYS, np.uint16 if self.size < 1 << 16 else np.int32)
        for at, column in enumerate(numbers):
            self.table[at * KEYS : (at + 1) * KEYS] = build_slot_table(column.low, column.keys, self.first[column.name])
        self.offsets = np.arange(len(numbers), dtype=np.uint32) << np.uint32(16)
        self.codes = {
            column.name: {value: at for at, value in enumerate(column.values)}
            for column in columns
            if column.kind == "category"
        }


def count_slots(column: Column) -> int:
    """The number of slots of a column."""
    return len(column.counts) + SPECIAL
