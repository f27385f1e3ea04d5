"""Chooses the rows to log by a hash of their id, so that all replicas choose the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BURST = 60.0
"""Seconds of the rate that may be kept at once, after a quiet time."""
SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""Increment of a request's hash from row to row (Fibonacci hashing, Knuth, TAOCP 6.4)."""
WORD = 8
"""Bytes of an id that are hashed together."""


def hash_rows(requests: Sequence[bytes], rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint64]:
    """A hash of 32 bits of each row's id, the rows of each request in order.

    Args:
        requests: ids.
        rows: the number of rows of each request.
    """
    counts = np.asarray(rows, dtype=np.int64)
    sums = _sum_words(requests)
    total = int(counts.sum())
    if total != len(counts):
        place = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        sums = np.repeat(sums, counts) + place.astype(np.uint64) * SPREAD
    # The finalizer of SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators).
    mixed = (sums ^ (sums >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))) >> np.uint64(32)


def join_texts(texts: Sequence[bytes]) -> NDArray[np.uint8] | None:
    """The bytes of texts of one length, a row for each text; None for several lengths."""
    length = len(texts[0]) if texts else 0
    joined = b"\n".join((*texts, b""))
    if len(joined) != len(texts) * (length + 1):
        return None
    letters = np.frombuffer(joined, dtype=np.uint8).reshape(len(texts), length + 1)
    ends_lines = letters == ord("\n")
    # As many lines as texts, each at the end of a row: no text has a line of its own.
    if not ends_lines[:, -1].all() or np.count_nonzero(ends_lines) != len(texts):
        return None if len(set(map(len, texts))) > 1 else letters[:, :-1]
    return letters[:, :-1]


def _sum_words(texts: Sequence[bytes]) -> NDArray[np.uint64]:
    """The sum of each text's words, each multiplied by a number of its place (multilinear hashing)."""
    letters = join_texts(texts)
    if letters is None:
        found = np.empty(len(texts), dtype=np.uint64)
        for length in set(map(len, texts)):
            places = [at for at, text in enumerate(texts) if len(text) == length]
            found[places] = _sum_words([texts[at] for at in places])
        return found
    words = -(-letters.shape[1] // WORD)
    rest = words * WORD - letters.shape[1]
    letters = np.pad(letters, ((0, 0), (0, rest))) if rest else np.ascontiguousarray(letters)
    factors = [(2 * at + 1) * int(SPREAD) & 0xFFFFFFFFFFFFFFFF for at in range(words)]
    columns = letters.view("<u8").T
    return sum((columns[at] * np.uint64(factor) for at, factor in enumerate(factors)), np.zeros(len(texts), np.uint64))


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
        for bits in range(32, -1, -1):
            is_kept = hashes < np.uint64(1 << bits)
            kept = int(np.count_nonzero(is_kept))
            if kept <= self._tokens:
                self._tokens -= kept
                return np.flatnonzero(is_kept), float(1 << (32 - bits))
        return np.zeros(0, dtype=np.int64), 1.0
