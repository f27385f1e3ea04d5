"""Counts of live rows in the bins of a baseline. They are integers: those of replicas add up exactly, in any order."""

from __future__ import annotations

from collections import Counter as Occurrences
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mlapp.baseline import Baseline, Column
from mlapp.baseline.build import numbers_of, text_of, texts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK = 1 << 16
"""Cells that are counted at once: as many as the processor's cache holds."""
_NUMBERS = {np.dtype(kind) for kind in ("f8", "f4", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1")}
_HASHED = ({int}, {str}, {bool})
SPECIAL = 3
"""Slots behind a column's bins: of a number below, above and missing; of a category new, (unused) and missing."""


class Counts(msgspec.Struct, kw_only=True):
    """What one replica counted of one version in one window; or the sum of several.

    Attributes:
        since, until: of the window, in seconds since 1970.
        rows: that were predicted.
        refused: rows that were refused, and `fields` those for each field.
        columns: of each feature and prediction: rows in each bin or value, then below, above and missing of a number,
            or new, 0 and missing of a category.
    """

    format: int = 1
    version: str
    since: float
    until: float
    rows: int = 0
    refused: int = 0
    dropped: int = 0
    fields: dict[str, int] = {}
    columns: dict[str, list[int]] = {}

    def add(self, other: Counts) -> None:
        """Add the counts of another replica, of the same version and window."""
        self.rows += other.rows
        self.refused += other.refused
        self.dropped += other.dropped
        for field, count in other.fields.items():
            self.fields[field] = self.fields.get(field, 0) + count
        for name, counts in other.columns.items():
            own = self.columns.get(name)
            self.columns[name] = counts if own is None else [a + b for a, b in zip(own, counts, strict=True)]


def merge(parts: Iterable[Counts]) -> Counts | None:
    """The sum of counts of one version; its window spans theirs. None where there are none."""
    total: Counts | None = None
    for part in parts:
        if total is None:
            total = msgspec.structs.replace(part, fields=dict(part.fields), columns=dict(part.columns))
        else:
            total.add(part)
            total.since, total.until = min(total.since, part.since), max(total.until, part.until)
    return total


class Counter:
    """Counts rows into the bins of one baseline.

    Args:
        private: columns of which only missing values are counted.
    """

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline
        self._features = _Block(baseline.features)
        self._predictions = _Block(baseline.predictions)

    def clear(self) -> None:
        """Begin a new window."""
        self._features.slots[:] = 0
        self._predictions.slots[:] = 0

    def add_features(self, features: Any) -> None:
        """Count rows of features, as the schema has them: a DataFrame, or an array of numbers."""
        self._features.add(features)

    def add_predictions(self, columns: dict[str, list[Any]]) -> None:
        """Count predictions, as `split_predictions` gives them."""
        self._predictions.add_columns(columns)

    def columns(self) -> dict[str, list[int]]:
        """The counts of each column so far."""
        return {**self._features.columns(), **self._predictions.columns()}


class _Block:
    """The slots of several columns, side by side in one array."""

    def __init__(self, columns: Sequence[Column]) -> None:
        from mlapp.baseline.bins import lookup

        self._columns = {column.name: column for column in columns}
        self._first: dict[str, int] = {}
        at = 0
        numbers: list[Column] = []
        for column in columns:
            self._first[column.name] = at
            at += _width(column)
            if column.kind == "number":
                numbers.append(column)
        self.slots: NDArray[np.int64] = np.zeros(at, dtype=np.int64)
        self._numbers = [column.name for column in numbers]
        self._centers = np.array([column.center for column in numbers])
        dtype = np.uint16 if at < 1 << 16 else np.int32
        tables = [lookup(column.low, column.keys, self._first[column.name]).astype(dtype) for column in numbers]
        self._table: NDArray[Any] = np.concatenate(tables) if tables else np.zeros(0, dtype=dtype)
        self._offsets = np.arange(len(numbers), dtype=np.int64) << 16
        self._codes = {
            column.name: {value: at for at, value in enumerate(column.values)}
            for column in columns
            if column.kind == "category"
        }

    def add(self, features: Any) -> None:
        if not len(self.slots):
            return
        if hasattr(features, "columns"):
            kinds = set(features.dtypes)
            if len(kinds) == 1 and kinds <= _NUMBERS and list(features.columns) == self._numbers == list(self._columns):
                self._add_numbers(features.to_numpy().astype(np.float64, copy=False))
                return
            self.add_columns({str(name): features.iloc[:, at] for at, name in enumerate(features.columns)})
            return
        array = features if isinstance(features, np.ndarray) else np.asarray(features)
        if array.dtype.kind not in "biufO" or not array.size:
            return
        cells = array.reshape(len(array), -1)
        if cells.dtype.kind != "O" and len(self._numbers) == len(self._columns) == cells.shape[1]:
            self._add_numbers(cells.astype(np.float64, copy=False))
        elif cells.shape[1] == len(self._columns):
            self.add_columns({name: cells[:, at] for at, name in enumerate(self._columns)})

    def add_columns(self, columns: dict[str, Any]) -> None:
        numbers = [name for name in self._numbers if name in columns]
        if numbers and len(numbers) == len(self._numbers):
            self._add_numbers(np.stack([numbers_of(columns[name]) for name in numbers], axis=1))
        elif numbers:
            for name in numbers:
                self._add_number(name, numbers_of(columns[name]))
        for name, codes in self._codes.items():
            if name in columns:
                self._add_category(name, codes, columns[name])
        for name, column in self._columns.items():
            if column.kind == "text" and name in columns:
                missing = sum(text is None for text in texts_of(columns[name]))
                self.slots[self._first[name] + 2] += missing
                self.slots[self._first[name]] += len(columns[name]) - missing

    def _add_numbers(self, cells: NDArray[np.float64]) -> None:
        """Rows of all number columns, in their order."""
        from mlapp.baseline.bins import codes_of

        rows = max(1, CHUNK // max(1, cells.shape[1]))
        for first in range(0, len(cells), rows):
            codes = codes_of(cells[first : first + rows], self._centers)
            at = self._table[codes + self._offsets]
            self.slots += np.bincount(at.ravel(), minlength=len(self.slots))

    def _add_number(self, name: str, values: NDArray[np.float64]) -> None:
        from mlapp.baseline.bins import codes_of

        which = self._numbers.index(name)
        at = self._table[codes_of(values, self._centers[which]) + self._offsets[which]]
        self.slots += np.bincount(at, minlength=len(self.slots))

    def _add_category(self, name: str, codes: dict[str, int], values: Any) -> None:
        first, width = self._first[name], len(codes)
        listed = values.tolist() if hasattr(values, "tolist") else list(values)
        # 1, 1.0 and True are one key of a dict, and may be different texts: only values of one type are counted first.
        is_alike = set(map(type, listed)) in _HASHED
        for value, count in Occurrences(listed).items() if is_alike else ((value, 1) for value in listed):
            text = text_of(value)
            self.slots[first + (width + 2 if text is None else codes.get(text, width))] += count

    def columns(self) -> dict[str, list[int]]:
        return {
            name: self.slots[first : first + _width(self._columns[name])].tolist()
            for name, first in self._first.items()
        }


def _width(column: Column) -> int:
    return len(column.counts) + SPECIAL
