"""Bins of numbers that are cheap to count into.

A number becomes a key of 16 bits: its distance from the column's center, as the upper half of a float32 (a bfloat16:
sign, 8 bits of exponent, 7 of mantissa), reordered so that keys sort as the numbers do. The resolution is 1/128 of the
distance, whatever the column's unit, offset or tails. Bins are ranges of keys, so a table with an entry for each key
gives the bin of a value with one look-up; `numpy.searchsorted` on 200 edges costs ten times as much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEYS = 1 << 16
CENTER = 1 << 15
"""Key of the distance 0."""
OCTAVE = 128
"""Keys from one power of two to the next."""


def encode_bins(values: NDArray[Any], center: Any) -> NDArray[np.uint32]:
    """The upper bits of each value's distance from the center, not yet in order: `ORDER` makes them keys.

    Args:
        values: float64, of any shape.
        center: center of the column, or one for each column.
    """
    distance = np.empty(values.shape, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        np.subtract(values, center, out=distance, casting="same_kind")
    codes = distance.view(np.uint32)
    codes >>= np.uint32(16)
    return codes


def _make_sortable_bin_codes() -> NDArray[np.uint16]:
    """Map the upper bits of a float32 to a number that sorts as the float does; raw negative floats sort backwards."""
    codes = np.arange(KEYS, dtype=np.uint32)
    return np.where(codes < KEYS // 2, codes + KEYS // 2, KEYS - 1 - codes).astype(np.uint16)


ORDER = _make_sortable_bin_codes()
"""Raw upper bits → key."""
_CODES = np.argsort(ORDER).astype(np.uint32)
"""Key → raw upper bits."""


def is_missing_bin_code() -> NDArray[np.bool_]:
    """A mask of the raw upper bits that mean NaN."""
    return np.isnan((np.arange(KEYS, dtype=np.uint32) << np.uint32(16)).view(np.float32))


def compute_bin_ends(keys: NDArray[Any], center: float) -> list[float]:
    """The largest value of each key, in the column's unit."""
    codes = _CODES[np.asarray(keys, dtype=np.int64)]
    negative = codes >= KEYS // 2
    # The largest distance of a key has all lower bits set if it is positive, and none if it is negative.
    bits = (codes << np.uint32(16)) | np.where(negative, np.uint32(0), np.uint32(0xFFFF))
    with np.errstate(over="ignore", invalid="ignore"):
        return [float(end) for end in bits.astype(np.uint32).view(np.float32).astype(np.float64) + center]


def make_bins(keys: NDArray[Any], max_bins: int) -> tuple[list[int], list[int]]:
    """The last key of each bin, and the rows in it: one bin per key if there are few keys, otherwise quantiles.

    A bin that ends at the center's own key ends halfway to the next value instead: an edge next to the center would
    have all keys of tiny distances between itself and the others.

    Args:
        keys: ordered keys of the training rows.
        max_bins: maximum number of bins.
    """
    ends, counts = np.unique(keys, return_counts=True)
    distinct_keys = ends
    if len(ends) > max_bins:
        total = np.cumsum(counts)
        quantile = np.minimum(((total - counts / 2) / total[-1] * max_bins).astype(np.int64), max_bins - 1)
        last = np.flatnonzero(np.append(quantile[1:] != quantile[:-1], True))
        row_ends = total[last]
        ends, counts = ends[last], np.diff(row_ends, prepend=0)
    center_index = int(np.searchsorted(ends, CENTER))
    if center_index < len(ends) - 1 and ends[center_index] == CENTER:
        above = int(distinct_keys[np.searchsorted(distinct_keys, CENTER) + 1])
        ends[center_index] = max(CENTER, above - OCTAVE)
    return [int(key) for key in ends], [int(count) for count in counts]


def build_bin_table(low: int, keys: list[int], first: int) -> NDArray[np.int32]:
    """A table from raw upper bits to a slot: the bins, then below the range, above the range, and missing.

    Args:
        low: key of the smallest value that training saw.
        keys: last key of each bin.
        first: the slot of the first bin.
    """
    ends = np.asarray(keys, dtype=np.int64)
    at = int(np.searchsorted(ends, CENTER))
    if at < len(ends) - 1 and ends[at] == CENTER:  # of an mlapp whose `make_bins` allowed it
        ends[at] = max(CENTER, ends[at + 1] - 7 * OCTAVE)
    of_key = np.searchsorted(ends, np.arange(KEYS)).astype(np.int32)
    table = of_key[ORDER]  # beyond the last bin it is len(keys), corrected next
    table[np.greater(ORDER, keys[-1] if keys else -1)] = len(keys) + 1
    table[np.less(ORDER, low)] = len(keys)
    table[is_missing_bin_code()] = len(keys) + 2
    return table + np.int32(first)
