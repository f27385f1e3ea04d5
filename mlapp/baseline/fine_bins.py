"""Counts numbers by key, and sums the counts of each bin's keys only when they are needed.

A bin is a range of keys (see `mlapp.baseline.bins`). Looking up the bin of each value costs more than everything else
together, so live values are counted by key. Few keys of a column matter: those between the edges that are nearest to
and farthest from its center. Each column's distances are multiplied by a power of two that moves the nearest edge to
the smallest exponent of a float64. Smaller distances become subnormal, and larger ones are limited to the farthest
edge. The upper 19 bits of the product (sign, 11 bits of exponent, 7 of mantissa) plus an offset for each column are
then the index of a count. The rounding is that of a conversion to float32, so each value counts in its key's bin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlapp.baseline.bins import KEYS, OCTAVE, build_bin_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlapp.baseline.baseline import Column

NEGATIVE = 1 << 18
"""Index of the first count of negative distances: the sign is the highest of the 19 bits."""
SHIFT = np.uint64(45)
HALF = np.uint64(1 << 28)
"""Half of the last bit of a float32's mantissa, in the bits of a float64. It is added to round."""
INFINITE = 0x7F80
"""Upper bits of an infinite float32."""
CELLS_AT_ONCE = 1 << 16
"""Cells that are converted at once: they stay in the processor's cache."""
TILE = 1024
"""Minimum cells of a tile: NumPy adds a row of constants to a matrix faster if the rows are long."""


class FineColumns(NamedTuple):
    """Neighboring columns of numbers that share one array of counts.

    Attributes:
        first, last: of the columns; `last` is not included.
        rows: number of rows in a tile. `centers`, `scales` (one or two arrays) and `offsets` are tiles. `offsets` are
            added to the bits of a float64; they round it too.
        limit: what larger distances become, and `missing`: what NaN becomes.
        size: number of counts for each sign.
        starts, slots: for positive and for negative distances: the first index of each bin, and the bin's slot.
    """

    first: int
    last: int
    rows: int
    centers: NDArray[np.float64]
    scales: list[NDArray[np.float64]]
    offsets: NDArray[np.uint64]
    limit: float
    missing: float
    size: int
    starts: tuple[NDArray[np.int64], NDArray[np.int64]]
    slots: tuple[NDArray[np.int64], NDArray[np.int64]]

    @property
    def width(self) -> int:
        """The number of columns."""
        return self.last - self.first


def group_binned_columns(columns: Sequence[Column], first_slots: Mapping[str, int]) -> list[FineColumns]:
    """The columns in groups whose counts have indexes below `NEGATIVE`.

    Args:
        columns: of numbers.
        first_slots: name → the column's first slot.
    """
    tables = [build_bin_table(column.low, column.keys, first_slots[column.name]) for column in columns]
    spans = [_find_bin_span(table) for table in tables]
    stride = max((span.end for span in spans), default=0) + 3
    columns_per_group = NEGATIVE // stride
    groups = []
    for begin in range(0, len(columns), columns_per_group):
        end = min(begin + columns_per_group, len(columns))
        centers = np.array([column.center for column in columns[begin:end]])
        groups.append(_make_bin_group(begin, end, centers, tables[begin:end], spans[begin:end], stride))
    return groups


class _Span(NamedTuple):
    """The magnitudes (upper bits of a float32 without the sign) between which a column's bins change.

    Attributes:
        octave: exponent of the smallest, at least 1.
        end: index of the count of the largest.
    """

    octave: int
    end: int


def _find_bin_span(table: NDArray[np.int32]) -> _Span:
    changes = [np.flatnonzero(np.diff(half[: INFINITE + 1])) + 1 for half in (table, table[KEYS // 2 :])]
    if not any(map(len, changes)):
        return _Span(1, 0)
    low = min(int(positions[0]) for positions in changes if len(positions))
    high = max(int(positions[-1]) for positions in changes if len(positions))
    octave = max(1, low // OCTAVE)
    return _Span(octave, high - (octave - 1) * OCTAVE)


def _make_bin_group(
    first: int,
    last: int,
    centers: NDArray[np.float64],
    tables: Sequence[NDArray[np.int32]],
    spans: Sequence[_Span],
    stride: int,
) -> FineColumns:
    width = last - first
    rows = max(1, TILE // width)
    exponents = [-895 - span.octave for span in spans]  # 2 to the power of octave - 127 becomes the smallest normal one
    scales = [np.array([math.ldexp(1.0, max(exponent, -1022)) for exponent in exponents])]
    if min(exponents) < -1022:
        scales.append(np.array([math.ldexp(1.0, min(0, exponent + 1022)) for exponent in exponents]))
    halves = [
        _find_bin_runs(
            [
                _select_fine_bin_slots(table, span, stride, half * KEYS // 2)
                for table, span in zip(tables, spans, strict=True)
            ]
        )
        for half in (0, 1)
    ]
    limit, missing = (float(np.uint64(at << int(SHIFT)).view(np.float64)) for at in (stride - 2, stride - 1))
    return FineColumns(
        first,
        last,
        rows,
        np.tile(centers, rows),
        [np.tile(scale, rows) for scale in scales],
        np.tile((np.arange(width, dtype=np.uint64) * np.uint64(stride) << SHIFT) + HALF, rows),
        limit,
        missing,
        width * stride,
        (halves[0][0], halves[1][0]),
        (halves[0][1], halves[1][1]),
    )


def _select_fine_bin_slots(table: NDArray[np.int32], span: _Span, stride: int, half: int) -> NDArray[np.int32]:
    """The slot of each count of one column and sign. The last count is that of missing values."""
    magnitudes = np.arange(stride) + (span.octave - 1) * OCTAVE
    if span.octave > 1:  # the distances that are subnormal
        magnitudes[:OCTAVE] = 0
    magnitudes[stride - 2 :] = INFINITE
    magnitudes = np.minimum(magnitudes, INFINITE)
    slots = table[half + magnitudes]
    slots[stride - 1] = table[INFINITE + 1]
    return slots


def _find_bin_runs(slots: Sequence[NDArray[np.int32]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The start of each run of equal slots, and its slot."""
    all_slots = np.concatenate(slots).astype(np.int64)
    starts = np.flatnonzero(np.diff(all_slots, prepend=-1))
    return starts, all_slots[starts]


class FineCounts:
    """Counts of a group's columns by key, for each weight of rows."""

    def __init__(self, columns: FineColumns) -> None:
        self._columns = columns
        self._counts: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def add(self, cells: NDArray[np.float64], weight: int = 1) -> None:
        """Count rows of all columns of the layout, of which the group's are counted.

        Args:
            weight: the number of rows that each one stands for.
        """
        columns = self._columns
        if cells.shape[1] != columns.width:
            cells = cells[:, columns.first : columns.last]
        values = np.ascontiguousarray(cells).reshape(-1)
        distances = np.empty(len(values))
        step = max(1, CELLS_AT_ONCE // len(columns.centers)) * len(columns.centers)
        with np.errstate(all="ignore"):
            for start in range(0, len(values), step):
                _convert_to_indexes(columns, values[start : start + step], distances[start : start + step])
        size, indexes = columns.size, distances.view(np.int64)
        first = NEGATIVE
        if size * 8 < NEGATIVE:  # with few columns, removing the gap between the signs costs less than counting in it
            first = size
            indexes[indexes >= NEGATIVE] -= NEGATIVE - size
        new_counts = np.bincount(indexes, minlength=first + size)
        positive, negative = new_counts[:size], new_counts[first : first + size]
        counts = self._counts.get(weight)
        if counts is None:
            self._counts[weight] = positive.copy(), negative.copy()
        else:
            counts[0][...] += positive
            counts[1][...] += negative

    def move_to(self, slots: NDArray[np.int64]) -> None:
        """Add the counts to those of the bins, and reset them to zero."""
        for weight, halves in self._counts.items():
            for counts, starts, targets in zip(halves, self._columns.starts, self._columns.slots, strict=True):
                sums = np.add.reduceat(counts, starts) * weight
                slots += np.bincount(targets, sums, len(slots)).astype(np.int64)
        self._counts = {}

    def reset_counts(self) -> None:
        """Reset the counts to zero."""
        self._counts = {}


def _convert_to_indexes(columns: FineColumns, values: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """Write the index of each value's count into the bits of `out`.

    Args:
        values: rows of the group's columns, one after the other.
    """
    whole = len(values) // len(columns.centers) * len(columns.centers)
    parts = [(values[:whole].reshape(-1, len(columns.centers)), out[:whole].reshape(-1, len(columns.centers)))]
    if whole < len(values):
        parts.append((values[whole:], out[whole:]))
    for cells, results in parts:
        if not cells.size:
            continue
        width = cells.shape[-1]
        np.subtract(cells, columns.centers[:width], out=results)
        for scale in columns.scales:
            np.multiply(results, scale[:width], out=results)
        if not (results.max() <= columns.limit and results.min() >= -columns.limit):
            missing = np.isnan(results)
            np.clip(results, -columns.limit, columns.limit, out=results)
            results[missing] = columns.missing
        bits = results.view(np.uint64)
        np.add(bits, columns.offsets[:width], out=bits)
        np.right_shift(bits, SHIFT, out=bits)
