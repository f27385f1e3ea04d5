"""Finds the requests of a sample by their ids, where this process has made the ids: without a look at each."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mlapp.monitoring.sampling import BITS, hash_sums, sum_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGITS = 3
"""The last hexadecimal digits of an id of this process: they count up, while the rest of the id stays the same."""
NUMBERS = {b"%0*x" % (DIGITS, number): number for number in range(16**DIGITS)}
"""The values of the last digits."""
AT_ONCE = 480
"""Ids that are hashed at once: NumPy releases the interpreter's lock (GIL) for operations on more than 500 numbers."""
FEWEST_DROPPED = 4
"""Halvings from which on a sample has so few rows that they are added one by one."""


class OwnIds:
    """Hashes ids of this process in advance, as `hash_requests` does. Use it in one thread."""

    def __init__(self) -> None:
        self._key: tuple[bytes, int, int] | None = None
        self._numbers: list[int] = []

    def find_requests_below(self, first: bytes, last: bytes, count: int, bits: int) -> list[int] | None:
        """The indexes of requests whose hash is below a power of two; None if the ids are not consecutive.

        Args:
            first, last: the ids of the first and of the last of `count` requests, whose ids this process has made in
                ascending order.
        """
        head = first[:-DIGITS]
        start, end = NUMBERS.get(first[-DIGITS:], 0), NUMBERS.get(last[-DIGITS:], 0)
        if bits > BITS - FEWEST_DROPPED or end - start != count - 1 or last[:-DIGITS] != head:
            return None
        places = []
        for chunk in range(start // AT_ONCE, end // AT_ONCE + 1):
            key = head, chunk, bits
            if key != self._key:
                self._key, self._numbers = key, _find_numbers_below(*key)
            for number in self._numbers:
                if start <= number <= end:
                    places.append(number - start)
        return places


def _find_numbers_below(head: bytes, chunk: int, bits: int) -> list[int]:
    """The last digits, as numbers, of ids whose hash is below a power of two."""
    first = chunk * AT_ONCE
    sums = _list_steps(len(head))[first : first + AT_ONCE] + sum_words([head + bytes(DIGITS)])[0]
    return [first + int(found) for found in np.flatnonzero(hash_sums(sums) < np.uint64(1 << bits))]


@lru_cache
def _list_steps(at: int) -> NDArray[np.uint64]:
    """What each value of the last digits adds to the sum of an id, whose digits begin at a place."""
    steps = np.zeros(1, dtype=np.uint64)
    for digit in range(DIGITS):
        texts = [bytes(at + digit) + b"%x" % value + bytes(DIGITS - digit - 1) for value in range(16)]
        steps = np.add.outer(steps, sum_words(texts)).reshape(-1)
    return steps
