"""Stores predictions of very many rows compactly, as arrays of numbers.

A list of four million floats takes 128 MB, and freeing it blocks all other threads for a tenth of a second.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import numpy as np

DTYPES = {float: "float64", int: "int64", bool: "bool"}
DISTINCT = 1000
"""Maximum number of distinct texts that are stored once each."""


class PackedRows(Sequence[Any]):
    """A sequence of JSON values. A slice of it is a list."""

    def __init__(self) -> None:
        self._pieces: list[Any] = []
        self._ends: list[int] = []
        self._texts: dict[str, str] = {}

    def extend(self, rows: list[Any]) -> None:
        """Append values."""
        self._ends.append(len(self) + len(rows))
        self._pieces.append(self._pack_rows(rows))

    def to_array(self) -> np.ndarray[Any, Any] | None:
        """The values as one array; None unless all are numbers or all are booleans."""
        import numpy as np

        kinds = {getattr(piece, "dtype", None) for piece in self._pieces}
        return np.concatenate(self._pieces) if len(kinds) == 1 and None not in kinds else None

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, at: int) -> Any: ...

    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...

    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            return list(itertools.islice(self._iterate_packed_rows(start), 0, max(stop - start, 0), step))
        row = range(len(self))[at]
        return next(self._iterate_packed_rows(row))

    def __iter__(self) -> Iterator[Any]:
        return self._iterate_packed_rows(0)

    def _iterate_packed_rows(self, row: int) -> Iterator[Any]:
        first = bisect_right(self._ends, row)
        for number in range(first, len(self._pieces)):
            piece = self._pieces[number]
            start = self._ends[number] - len(piece)
            rest = piece[row - start :] if row > start else piece
            yield from rest if isinstance(rest, list) else rest.tolist()

    def _pack_rows(self, rows: list[Any]) -> Any:
        import numpy as np

        kinds = set(map(type, rows))
        kind = kinds.pop() if len(kinds) == 1 else None
        if kind is str and len(self._texts) < DISTINCT:
            return [self._texts.setdefault(row, row) for row in rows]
        if kind not in DTYPES:
            return rows
        try:
            return np.array(rows, dtype=DTYPES[kind])
        except OverflowError:  # an integer of more than 64 bits
            return rows
