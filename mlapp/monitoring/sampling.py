"""Which rows are logged: those whose id has a small hash, so that every replica keeps the same ones."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BURST = 60.0
"""Seconds of the rate that may be kept at once, after a quiet time."""


def hash_of(request: bytes, row: int) -> int:
    """A hash of 32 bits of a row's id. CRC-32 of texts that differ little differs in its lower bits: it is mixed."""
    mixed = zlib.crc32(b"#%d" % row, zlib.crc32(request))
    mixed = (mixed ^ (mixed >> 16)) * 0x45D9F3B & 0xFFFFFFFF
    mixed = (mixed ^ (mixed >> 16)) * 0x45D9F3B & 0xFFFFFFFF
    return mixed ^ (mixed >> 16)


class Sampler:
    """Keeps the rows whose hash is below a power of 1/2, the largest that stays within the rate. A row that is kept at
    one share is kept at every larger one.

    Args:
        rate: rows per second; None keeps all.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._tokens = 0.0 if rate is None else rate * BURST

    def choose(self, hashes: Sequence[int], seconds: float) -> tuple[NDArray[np.int64], float]:
        """The positions to keep, and the rows that each of them stands for.

        Args:
            seconds: since the last choice.
        """
        values = np.asarray(hashes, dtype=np.uint64)
        if self._rate is None:
            return np.arange(len(values)), 1.0
        self._tokens = min(self._tokens + seconds * self._rate, self._rate * BURST)
        for power in range(33):
            kept = np.flatnonzero(values < (1 << (32 - power)))
            if len(kept) <= self._tokens:
                self._tokens -= len(kept)
                return kept, float(1 << power)
        return np.zeros(0, dtype=np.int64), 1.0
