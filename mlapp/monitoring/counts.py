"""Counts live rows in the bins of a baseline. Counts are integers, so those of replicas add up exactly in any order."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from mlapp.baseline import Baseline
from mlapp.baseline.build import convert_baseline_numbers, count_category_texts, count_missing_values
from mlapp.baseline.fine_bins import FineCounts, group_binned_columns
from mlapp.baseline.predictions import NAME, split_baseline_predictions
from mlapp.baseline.slots import SlotLayout, count_slots
from mlapp.monitoring.place import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray


AT_ONCE = 131_072
"""Maximum cells that are counted in one call, during which NumPy and struct hold the interpreter's lock."""
PREDICTIONS_AT_ONCE = 8_192
"""Maximum predictions that are counted in one call. Each can be a list or a dict."""
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A number of rows. Larger ones are not exact in JSON."""


class Counts(msgspec.Struct, kw_only=True):
    """The counts of one version by one replica in one window, or their sum.

    Attributes:
        since, until: start and end of the window, in seconds since 1970.
        rows: number of predicted rows.
        refused: number of refused rows; `fields` by field.
        squares: sum of the squared weights of the counted rows; 0 if every row was counted. See `effective_share`.
        columns: per feature and prediction, the rows in each bin or value, then below, above and missing of a number,
            or new, 0 and missing of a category.
    """

    format: int = 1
    version: str
    since: float
    until: float
    rows: Natural = 0
    refused: Natural = 0
    dropped: Natural = 0
    squares: Natural = 0
    fields: dict[str, Natural] = {}
    columns: dict[str, list[Natural]] = {}

    @property
    def window(self) -> Window:
        """The window of these counts."""
        return Window(int(self.since), int(self.until - self.since))

    def add_rows(self, rows: int, counted: Sequence[tuple[int, int]]) -> None:
        """Add rows, of which some are counted.

        Args:
            counted: numbers of rows, and the weight of each of them.
        """
        if self.squares or sum(number for number, _ in counted) < rows:
            self.squares = (self.squares or self.rows) + sum(number * weight**2 for number, weight in counted)
        self.rows += rows

    @property
    def effective_share(self) -> float:
        """Kish's effective sample size as a share of the rows: 1 if all counted rows have the same weight."""
        return self.rows / self.squares if self.squares > self.rows else 1.0

    def add(self, other: Counts) -> None:
        """Add the counts of another replica for the same version and window."""
        if self.squares or other.squares:
            self.squares = (self.squares or self.rows) + (other.squares or other.rows)
        self.rows += other.rows
        self.refused += other.refused
        self.dropped += other.dropped
        for field, count in other.fields.items():
            self.fields[field] = self.fields.get(field, 0) + count
        for name, counts in other.columns.items():
            own = self.columns.get(name)
            self.columns[name] = counts if own is None else [a + b for a, b in zip(own, counts, strict=True)]


def merge_counts(parts: Iterable[Counts]) -> Counts | None:
    """The sum of counts of one version, over the interval of all their windows; None without counts."""
    total: Counts | None = None
    for part in parts:
        if total is None:
            total = msgspec.structs.replace(part, fields=dict(part.fields), columns=dict(part.columns))
        else:
            total.add(part)
            total.since, total.until = min(total.since, part.since), max(total.until, part.until)
    return total


class Counter:
    """Counts rows into the bins of one baseline."""

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline
        self.features = Slots(baseline.feature_slots)
        self.predictions = Slots(baseline.prediction_slots)

    def reset_counts(self) -> None:
        """Start a new window."""
        self.features.reset_counts()
        self.predictions.reset_counts()

    def add_features(self, features: Any, weight: int = 1) -> None:
        """Count rows of features in the schema's form: a DataFrame, an array of numbers, or a dict of arrays.

        Args:
            weight: the number of rows that each one stands for.
        """
        self.features.add(features, weight)

    def add_predictions(self, columns: dict[str, list[Any]], weight: int = 1) -> None:
        """Count predictions in the form of `split_baseline_predictions`."""
        self.predictions.add_columns(columns, weight)

    def add_answers(self, rows: Sequence[Any], weight: int = 1) -> None:
        """Count predictions, one per row, as in an answer."""
        for part in [rows] if len(rows) <= PREDICTIONS_AT_ONCE else _cut(rows, PREDICTIONS_AT_ONCE):
            if not self.predictions.count_prediction_floats(part, weight):
                self.add_predictions(split_baseline_predictions(part), weight)

    def list_column_counts(self) -> dict[str, list[int]]:
        """The counts of each column so far."""
        return {**self.features.list_column_counts(), **self.predictions.list_column_counts()}


class Slots:
    """The counts of several columns in one array.

    Attributes:
        first: column → its first slot.
        cleared: number of resets to zero.
    """

    def __init__(self, layout: SlotLayout) -> None:
        self.first = layout.first
        self.cleared = 0
        self._counts: NDArray[np.int64] = np.zeros(layout.size, dtype=np.int64)
        self._columns, self._codes, self._steps = layout.columns, layout.codes, layout.steps
        self._numbers = {column.name: column for column in layout.numbers}
        self._fine = [FineCounts(group) for group in layout.groups]
        self._single: dict[str, FineCounts] = {}
        self._rounded = np.flatnonzero(self._steps)

    @property
    def counts(self) -> NDArray[np.int64]:
        """The counts of all slots. The array is the same for all calls."""
        for fine in (*self._fine, *self._single.values()):
            fine.move_to(self._counts)
        return self._counts

    def __len__(self) -> int:
        """The number of counted columns."""
        return len(self._columns)

    def reset_counts(self) -> None:
        """Reset the counts to zero."""
        for fine in (*self._fine, *self._single.values()):
            fine.reset_counts()
        self._counts[:] = 0
        self.cleared += 1

    def add(self, features: Any, weight: int = 1) -> None:
        """Count rows of a DataFrame, an array or a dict of arrays. Other forms are ignored."""
        if not self._columns:
            return
        if hasattr(features, "columns"):
            if len(self._numbers) == len(self._columns) == features.shape[1] and has_uniform_numbers(features):
                self._add_numbers(features.to_numpy(), weight)
            else:
                self.add_columns({str(name): values for name, values in features.items()}, weight)
            return
        if isinstance(features, Mapping):
            flat = {str(name): part for name, part in features.items() if getattr(part, "ndim", 0) == 1}
            self.add_columns(flat, weight)
            return
        array = features if isinstance(features, np.ndarray) else np.asarray(features)
        if array.dtype.kind not in "biufO" or not array.size:
            return
        cells = array.reshape(len(array), -1)
        if cells.dtype.kind != "O" and len(self._numbers) == len(self._columns) == cells.shape[1]:
            self._add_numbers(cells, weight)
        elif cells.shape[1] == len(self._columns):
            self.add_columns({name: cells[:, at] for at, name in enumerate(self._columns)}, weight)

    def count_prediction_floats(self, values: Sequence[Any], weight: int = 1) -> bool:
        """Count numbers if there is one column of numbers. Returns whether they were counted."""
        if len(self._columns) != 1 or NAME not in self._numbers:
            return False
        try:
            numbers = np.frombuffer(struct.pack(f"={len(values)}d", *values))
        except (struct.error, OverflowError):
            return False
        self._add_numbers(numbers[:, None], weight)
        return True

    def add_columns(self, columns: Mapping[str, Any], weight: int = 1) -> None:
        """Count rows column by column. Unknown columns are ignored."""
        numbers = [name for name in self._numbers if name in columns]
        if numbers and len(numbers) == len(self._numbers):
            self._add_numbers(np.stack([convert_baseline_numbers(columns[name]) for name in numbers], axis=1), weight)
        else:
            for name in numbers:
                self._add_single_column(name, convert_baseline_numbers(columns[name]), weight)
        for name, codes in self._codes.items():
            if name in columns:
                self._add_category(name, codes, count_category_texts(columns[name]), weight)
        for name, column in self._columns.items():
            if column.kind == "text" and name in columns:
                missing = count_missing_values(columns[name])
                self._counts[self.first[name] + 2] += missing * weight
                self._counts[self.first[name]] += (len(columns[name]) - missing) * weight

    def _add_numbers(self, cells: NDArray[Any], weight: int) -> None:
        """Count rows of all columns of numbers, in order."""
        cells = cells.astype(np.float64, copy=False)
        if len(self._rounded):
            steps = self._steps[self._rounded]
            cells = cells.copy()
            cells[:, self._rounded] = np.round(cells[:, self._rounded] / steps) * steps
        for part in [cells] if cells.size <= AT_ONCE else _cut(cells, AT_ONCE // cells.shape[1]):
            for fine in self._fine:
                fine.add(part, weight)

    def _add_single_column(self, name: str, values: NDArray[np.float64], weight: int) -> None:
        """Count one column of numbers, where others are absent."""
        column = self._numbers[name]
        if name not in self._single:
            (group,) = group_binned_columns([column], self.first)
            self._single[name] = FineCounts(group)
        if column.step:
            values = np.round(values / column.step) * column.step
        self._single[name].add(values[:, None], weight)

    def _add_category(self, name: str, codes: Mapping[str, int], texts: Mapping[str | None, int], weight: int) -> None:
        first, width = self.first[name], len(codes)
        for text, count in texts.items():
            self._counts[first + (width + 2 if text is None else codes.get(text, width))] += count * weight

    def list_column_counts(self) -> dict[str, list[int]]:
        """The counts of each column."""
        counts = self.counts
        return {
            name: counts[first : first + count_slots(self._columns[name])].tolist()
            for name, first in self.first.items()
        }


def _cut(rows: Any, max_rows: int) -> Iterator[Any]:
    """The rows of a list or an array in parts of at most so many."""
    step = max(1, max_rows)
    return (rows[at : at + step] for at in range(0, len(rows), step))


def has_uniform_numbers(table: Any) -> bool:
    """Whether all columns of a DataFrame are floats or integers of one type."""
    dtypes = table.dtypes
    first = dtypes.iloc[0]
    return isinstance(first, np.dtype) and first.kind in "iuf" and bool((dtypes == first).all())
