"""Chooses the rows to log by a hash of their id, so that all replicas choose the same ones."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BURST = 60.0
"""Seconds of the rate that may be kept at once, after a quiet time."""
SPREAD = 0x9E3779B1
"""Increment of a request's hash from row to row (Fibonacci hashing, Knuth, TAOCP 6.4)."""


def hash_rows(requests: Sequence[bytes], rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint64]:
    """A hash of 32 bits of each row's id, the rows of each request in order.

    CRC-32 of similar texts differs in few bits, so it is mixed (the finalizer of a multiplicative hash).

    Args:
        requests: ids.
        rows: the number of rows of each request.
    """
    counts = np.asarray(rows, dtype=np.int64)
    mixed = np.fromiter(map(zlib.crc32, requests), dtype=np.uint64, count=len(requests))
    total = int(counts.sum())
    if total != len(counts):
        place = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        mixed = (np.repeat(mixed, counts) + place.astype(np.uint64) * np.uint64(SPREAD)) & np.uint64(0xFFFFFFFF)
    for _ in range(2):
        mixed = ((mixed ^ (mixed >> np.uint64(16))) * np.uint64(0x45D9F3B)) & np.uint64(0xFFFFFFFF)
    return mixed ^ (mixed >> np.uint64(16))


class Sampler:
    """Keeps the rows whose hash is below a power of 1/2, the largest that stays within the rate. A row kept at
    one share is also kept at every larger one.

    Args:
        rate: rows per second; None keeps all.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._tokens = 0.0 if rate is None else rate * BURST

    @property
    def keeps_all(self) -> bool:
        """Whether every row is kept."""
        return self._rate is None

    def choose(self, hashes: NDArray[np.uint64], seconds: float) -> tuple[NDArray[np.int64], float]:
        """The positions to keep, and the number of rows that each represents.

        Args:
            seconds: since the last call.
        """
        if self._rate is None:
            return np.arange(len(hashes)), 1.0
        self._tokens = min(self._tokens + seconds * self._rate, self._rate * BURST)
        _, bits = np.frexp(hashes.astype(np.float64))  # a hash is less than 2 to the power of its bits
        below = np.cumsum(np.bincount(bits, minlength=33))
        fitting = int(np.searchsorted(below, self._tokens, side="right")) - 1
        if fitting < 0:
            return np.zeros(0, dtype=np.int64), 1.0
        self._tokens -= int(below[fitting])
        return np.flatnonzero(bits <= fitting), float(1 << (32 - fitting))
