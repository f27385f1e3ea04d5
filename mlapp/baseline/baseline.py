"""The format of a baseline: plain data, stored as JSON next to the model's files and covered by their hashes."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mlapp import distribution
from mlapp.errors import StoreError

if TYPE_CHECKING:
    from mlapp.baseline.slots import SlotLayout

FILE = "baseline.json"
FORMAT = 1
Kind = Literal["number", "category", "text"]


class Column(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The distribution of one column.

    Attributes:
        kind: `number` has bins, `category` has values, `text` has neither and counts only missing values.
        rows: rows that were counted; `missing` of them have no value.
        center: center of a number, in its own unit; bins divide the distance from it (see `mlapp.baseline.bins`).
        keys: for a number, the last key of each bin, in ascending order.
        edges: for a number, the upper end of each bin, in its own unit.
        low: for a number, the key of the smallest value.
        minimum, maximum: for a number, the range of the values.
        values: for a category, the values, most frequent first.
        counts: rows of each bin or value.
        others: for a category, rows of values that are not in `values`.
        singles: for a category, the number of values with one row.
        step: for a number, values are rounded to its multiples before they are counted.
    """

    name: str
    kind: Kind
    rows: int
    missing: int = 0
    center: float = 0.0
    low: int = 0
    keys: list[int] = []
    edges: list[float] = []
    minimum: float | None = None
    maximum: float | None = None
    values: list[str] = []
    counts: list[int] = []
    others: int = 0
    singles: int = 0
    step: float | None = None

    @property
    def has_all_values(self) -> bool:
        """Whether every value of the training data is listed, so that any other value is new."""
        return self.kind == "category" and self.others == 0


class MetricError(msgspec.Struct, frozen=True):
    """The bootstrap standard error of a metric, and the number of rows that the metric was measured on."""

    error: float
    rows: int


class Calibration(msgspec.Struct, frozen=True):
    """How often a classifier is right at each confidence, measured on the last split.

    Attributes:
        edges: upper ends of the bins of confidence, the probability of the predicted class.
        accuracy: share of right predictions in each bin.
        rows: of the split.
    """

    edges: list[float]
    accuracy: list[float]
    rows: int


class Baseline(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Everything a version stores about its training data.

    Attributes:
        rows: of the training split; the columns can describe a sample of them.
        features: as a client sends them.
        transformed: the features after the feature_transformer; empty without one.
        predictions: of the model on training rows.
        errors: split → metric → its error.
        target: JSON type of the target: integer, number, boolean or string; None if unknown.
        classes: a classifier's target values, as texts of categories; empty if unknown, private, or very many.
        calibration: only for a classifier with probabilities.
    """

    format: int = FORMAT
    rows: int = 0
    features: list[Column] = []
    transformed: list[Column] = []
    predictions: list[Column] = []
    errors: dict[str, dict[str, MetricError]] = {}
    target: str | None = None
    classes: list[str] = []
    calibration: Calibration | None = None

    @cached_property
    def feature_slots(self) -> SlotLayout:
        """The layout of the live counts of the features."""
        from mlapp.baseline.slots import SlotLayout

        return SlotLayout(self.features)

    @cached_property
    def prediction_slots(self) -> SlotLayout:
        """The layout of the live counts of the predictions."""
        from mlapp.baseline.slots import SlotLayout

        return SlotLayout(self.predictions)

    def prepare_counting(self) -> None:
        """Create the layouts now, so that forked processes share them."""
        _ = self.feature_slots, self.prediction_slots

    def write(self, folder: Path) -> None:
        """Write it into the folder of the model's files."""
        (folder / FILE).write_bytes(msgspec.json.encode(self))


class _Format(msgspec.Struct):
    format: Any = None


def read_baseline(folder: Path) -> Baseline | None:
    """The baseline in a version's folder, or None.

    Raises:
        StoreError: it is from a newer mlapp, or damaged.
    """
    try:
        content = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return None
    try:
        file_format = msgspec.json.decode(content, type=_Format).format
        if not isinstance(file_format, int) or file_format > FORMAT:
            raise StoreError(
                f"{folder / FILE} has format {file_format}; this mlapp reads formats up to {FORMAT}.",
                f"Upgrade: pip install --upgrade {distribution.NAME}.",
            )
        return msgspec.json.decode(content, type=Baseline)
    except msgspec.MsgspecError as error:
        raise StoreError(
            f"{folder / FILE} cannot be read: {error}", "Restore it from a backup, or train again."
        ) from None
