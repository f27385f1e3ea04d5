"""Infers fields of NumPy numbers for all columns of a dtype at once, because pandas' access by column is slow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlapp.schema.fields import Field

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

CELLS = 1_000_000
"""Values that are copied at once, so that a large table is not in memory twice."""


def infer_number_fields(table: pd.DataFrame, example: dict[str, Any]) -> dict[int, Field]:
    """The fields of the columns with NumPy's integers and floats, by position, without other columns.

    Args:
        table: with at least one row.
        example: a row, by the names of the columns.
    """
    import numpy as np

    positions: dict[np.dtype[Any], list[int]] = {}
    for at, dtype in enumerate(table.dtypes):
        if isinstance(dtype, np.dtype) and dtype.kind in "iuf":
            positions.setdefault(dtype, []).append(at)
    names = [str(name) for name in table.columns]
    fields = {}
    for dtype, places in positions.items():
        ranges = _find_number_ranges(table, places)
        for at, nullable, low, high in zip(places, *(each.tolist() for each in ranges), strict=True):
            fields[at] = _describe_number_field(names[at], dtype, nullable, low, high, example.get(names[at]))
    return fields


def _find_number_ranges(table: pd.DataFrame, places: list[int]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Whether each column at these positions has a missing value, its smallest and its largest number."""
    import numpy as np

    step = max(1, CELLS // len(places))
    parts = []
    for start in range(0, len(table), step):
        block = table.iloc[start : start + step].iloc[:, places].to_numpy()
        # nanmin and nanmax warn about columns without a number.
        low, high = np.fmin.reduce(block, axis=0), np.fmax.reduce(block, axis=0)
        missing = np.isnan(block).any(axis=0) if block.dtype.kind == "f" else np.zeros(len(places), dtype=bool)
        parts.append((missing, low, high))
    missing_parts, low_parts, high_parts = zip(*parts, strict=True)
    return np.logical_or.reduce(missing_parts), np.fmin.reduce(low_parts), np.fmax.reduce(high_parts)


def find_number_range(values: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """The smallest and the largest number of a column; None for an infinite one."""
    import numpy as np

    return _keep_finite_bound(float(np.fmin.reduce(values))), _keep_finite_bound(float(np.fmax.reduce(values)))


def choose_number_example(example: Any, low: float | None) -> Any:
    """The example of a column of floats, or the column's smallest number if clients cannot send the example."""
    is_infinite = isinstance(example, float) and math.isinf(example)
    return (0.0 if low is None else low) if is_infinite else example


def _describe_number_field(
    name: str, dtype: np.dtype[Any], nullable: bool, low: float, high: float, example: Any
) -> Field:
    if dtype.kind == "f":
        minimum, maximum = _keep_finite_bound(low), _keep_finite_bound(high)
        return Field(
            name=name,
            type="number",
            dtype=str(dtype),
            nullable=nullable,
            minimum=minimum,
            maximum=maximum,
            example=choose_number_example(example, minimum),
        )
    return Field(name=name, type="integer", dtype=str(dtype), minimum=low, maximum=high, example=example)


def _keep_finite_bound(value: float) -> float | None:
    return value if math.isfinite(value) else None
