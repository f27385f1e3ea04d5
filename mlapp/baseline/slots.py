"""The layout of the counts of several columns in one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlapp.baseline.fine_bins import group_binned_columns

if TYPE_CHECKING:
    from mlapp.baseline.baseline import Column

SPECIAL = 3
"""Slots after a column's bins: below, above and missing of a number; new, (unused) and missing of a category."""


class SlotLayout:
    """The slots of columns. A layout never changes, so that all windows of a version and all forked workers share it.

    Attributes:
        columns: by name.
        first: column → its first slot; `size` slots in all.
        numbers: the columns of numbers, with `steps` to round to (0: none), and in `groups` to count them.
        codes: column of categories → value → its slot after the first.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = {column.name: column for column in columns}
        self.first: dict[str, int] = {}
        self.size = 0
        for column in columns:
            self.first[column.name] = self.size
            self.size += count_slots(column)
        self.numbers = [column for column in columns if column.kind == "number"]
        self.steps = np.array([column.step or 0.0 for column in self.numbers])
        self.groups = group_binned_columns(self.numbers, self.first)
        self.codes = {
            column.name: {value: at for at, value in enumerate(column.values)}
            for column in columns
            if column.kind == "category"
        }


def count_slots(column: Column) -> int:
    """The number of slots of a column."""
    return len(column.counts) + SPECIAL
