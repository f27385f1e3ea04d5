"""Chooses the rows to log by a hash of their id, so that all replicas choose the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlapp.monitoring.plain_parquet import join_equal_texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

BURST = 60.0
"""Seconds of the rate that may be kept at once, after a quiet time."""
SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""Increment of a request's hash from row to row (Fibonacci hashing, Knuth, TAOCP 6.4)."""
WORD = 8
"""Bytes of an id that are hashed together."""
LENGTH = 4
"""Bytes of a text's length in `join_equal_texts`."""
BITS = 32
"""Bits of a hash."""


def hash_rows_for_sampling(
    requests: Sequence[bytes], rows: Sequence[int] | NDArray[np.int64] | None
) -> NDArray[np.uint64]:
    """A hash of 32 bits of each row's id, the rows of each request in order.

    Args:
        requests: ids.
        rows: the number of rows of each request; None if each has one.
    """
    sums = _sum_words(requests)
    if rows is not None:
        counts = np.asarray(rows, dtype=np.int64)
        place = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        sums = np.repeat(sums, counts) + place.astype(np.uint64) * SPREAD
    # The finalizer of SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators).
    mixed = (sums ^ (sums >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))) >> np.uint64(32)


def _sum_words(texts: Sequence[bytes]) -> NDArray[np.uint64]:
    """The sum of each text's words, each multiplied by a number of its place (multilinear hashing)."""
    data = join_equal_texts(texts)
    if data is not None:
        return _sum_equal_words(data[LENGTH:], len(texts), len(texts[0]), LENGTH)
    found = np.zeros(len(texts), dtype=np.uint64)
    for length in set(map(len, texts)):
        places = [at for at, text in enumerate(texts) if len(text) == length]
        found[places] = _sum_equal_words(b"".join([texts[at] for at in places]), len(places), length, 0)
    return found


def _sum_equal_words(data: bytes, texts: int, length: int, gap: int) -> NDArray[np.uint64]:
    """`_sum_words` of texts of one length, which lie in `data` at so many bytes from each other."""
    sums = np.zeros(texts, dtype=np.uint64)
    padded = data + bytes(WORD)
    for at, start in enumerate(range(0, length, WORD)):
        words = np.ndarray((texts,), "<u8", padded, start, (length + gap,))
        if length - start < WORD:
            words = words & np.uint64((1 << 8 * (length - start)) - 1)
        sums += words * np.uint64((2 * at + 1) * int(SPREAD) & 0xFFFFFFFFFFFFFFFF)
    return sums


class Sampler:
    """Keeps the rows whose hash is below a power of 1/2, the largest that stays within the rate. A row kept at
    one share is also kept at every larger one.

    Args:
        rate: rows per second; None keeps all.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._tokens = 0.0 if rate is None else rate * BURST
        self._bits = BITS

    def choose(self, hashes: NDArray[np.uint64], seconds: float) -> tuple[NDArray[np.int64], float]:
        """The positions to keep, and the number of rows that each represents.

        Args:
            seconds: since the last call.
        """
        if self._rate is None:
            return np.arange(len(hashes)), 1.0
        self._tokens = min(self._tokens + seconds * self._rate, self._rate * BURST)
        bits, places, some = self._bits, None, hashes
        kept = _count_below(hashes, bits)
        if kept > self._tokens:  # the hashes that are kept are among these
            places = np.flatnonzero(hashes < np.uint64(1 << bits))
            some = hashes[places]
        while kept > self._tokens and bits:
            bits -= 1
            kept = _count_below(some, bits)
        while bits < BITS and places is None and (more := _count_below(some, bits + 1)) <= self._tokens:
            bits, kept = bits + 1, more
        self._bits = bits
        if kept > self._tokens:
            return np.zeros(0, dtype=np.int64), 1.0
        self._tokens -= kept
        chosen = np.flatnonzero(some < np.uint64(1 << bits))
        return chosen if places is None else places[chosen], float(1 << (BITS - bits))


def _count_below(hashes: NDArray[np.uint64], bits: int) -> int:
    return int(np.count_nonzero(hashes < np.uint64(1 << bits)))
