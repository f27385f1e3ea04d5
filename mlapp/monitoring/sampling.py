"""Chooses the rows to log by a hash of their id, so that all replicas choose the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BURST = 60.0
"""Seconds of the rate that may be kept at once after a quiet time."""
SPREAD = np.uint64(0x9E3779B9)
"""Increment of a request's hash from row to row (Fibonacci hashing, Knuth, TAOCP 6.4)."""
BITS = 32
"""Bits of a hash."""
FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Factor of the polynomial of an id: 2**64 divided by the golden ratio."""
HALF = np.uint64(32)
AHEAD = 2
"""Number of doublings by which the share of kept rows can grow at once."""


def hash_requests(ids: Sequence[bytes]) -> NDArray[np.uint64]:
    """A hash of 32 bits of each request's id, which is that of its first row.

    It is a polynomial of the id's words of 8 bytes (the last one filled with zeros), modulo 2**64, whose high and low
    halves are mixed: the cheapest hash for NumPy to compute for many texts at once.
    """
    if not ids:
        return np.zeros(0, dtype=np.uint64)
    return hash_sums(sum_words(ids))


def sum_words(ids: Sequence[bytes]) -> NDArray[np.uint64]:
    """The polynomial of each id's words. The sum of an id and of changes to its bytes is that of the changed id."""
    words = _list_words(ids)
    sums: NDArray[np.uint64] = words @ _list_powers(words.shape[1])  # unlike `dot`, one call for all rows
    return sums


def hash_sums(sums: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The hashes of the ids with these polynomials."""
    return ((sums ^ (sums >> HALF)) * FACTOR) >> HALF


@lru_cache
def _list_powers(count: int) -> NDArray[np.uint64]:
    """The factors of an id's words."""
    return np.cumprod(np.full(count, FACTOR), dtype=np.uint64)


def _list_words(ids: Sequence[bytes]) -> NDArray[np.uint64]:
    """The words of texts, a row for each text, followed by at least one zero byte."""
    whole, rest = divmod(len(ids[0]), 8)
    zeros = bytes(8 - rest)
    data = zeros.join(ids) + zeros
    if len(data) == (whole + 1) * 8 * len(ids):
        words = np.frombuffer(data, dtype="<u8").reshape(len(ids), -1)
        if not (words[:, -1] >> np.uint64(8 * rest)).any():  # the zeros line up, so all texts have the same length
            return words
    width = max(map(len, ids)) // 8 * 8 + 8
    return np.array(ids, dtype=f"S{width}").view("<u8").reshape(len(ids), -1)


def hash_rows(requests: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A hash of 32 bits of each row.

    Args:
        requests: the hash of each row's request.
        rows: the index of each row in its request.
    """
    return (requests + rows.astype(np.uint64) * SPREAD) & np.uint64((1 << BITS) - 1)


def find_rows_below(hashes: NDArray[np.uint64], counts: Sequence[int] | None, bits: int) -> list[int]:
    """The indexes of rows whose hash is below a power of two, among those of all requests.

    Args:
        hashes: of the requests.
        counts: number of rows of each request; None if each has one.
    """
    if counts is not None:
        sizes = np.asarray(counts, dtype=np.int64)
        rows = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        hashes = hash_rows(np.repeat(hashes, sizes), rows)
    return np.flatnonzero(hashes < np.uint64(1 << bits)).tolist()


class Sampler:
    """Keeps the rows whose hash is below a power of two, the largest that stays within the rate. A row kept at
    one share is also kept at every larger one.

    Attributes:
        rate: rows per second.
        limit_bits: only rows whose hash is below this power of two can be kept by the next call of `choose`.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._tokens = rate * BURST
        self._bits = self.limit_bits = BITS
        self._is_quiet = True

    def pass_time(self, seconds: float) -> None:
        """Note that time has passed. If no row arrived meanwhile, a larger share may be kept next."""
        self._tokens = min(self._tokens + seconds * self.rate, self.rate * BURST)
        if self._is_quiet:
            self._set_bits(min(BITS, self._bits + AHEAD))
        self._is_quiet = True

    def _set_bits(self, bits: int) -> None:
        self._bits, self.limit_bits = bits, min(BITS, bits + AHEAD)

    def choose(self, hashes: NDArray[np.uint64], limit_bits: int = BITS) -> tuple[NDArray[np.int64], float]:
        """The positions to keep, and the number of rows that each represents.

        Args:
            limit_bits: all rows with a hash below this power of two are in `hashes`; other rows can be missing.
        """
        self._is_quiet = False
        bits = min(self._bits, limit_bits)
        places = np.flatnonzero(hashes < np.uint64(1 << limit_bits))
        some = hashes[places]
        while bits and _count_below(some, bits) > self._tokens:
            bits -= 1
        if bits == min(self._bits, limit_bits):
            while bits < limit_bits and _count_below(some, bits + 1) <= self._tokens:
                bits += 1
        self._set_bits(bits)
        chosen = places[some < np.uint64(1 << bits)]
        if len(chosen) > self._tokens:
            return np.zeros(0, dtype=np.int64), 1.0
        self._tokens -= len(chosen)
        return chosen, float(1 << (BITS - bits))


def _count_below(hashes: NDArray[np.uint64], bits: int) -> int:
    return int(np.count_nonzero(hashes < np.uint64(1 << bits)))
