"""A few rows that stand for the features: for the schema of predictions, and for the check before a version exists."""

from __future__ import annotations

from typing import Any

from mlapp.schema.container import is_dataset

ROWS = 100
"""Rows of the sample."""
COLUMNS = 50
"""Columns of which a row with a missing value is looked for."""


def sample_rows(features: Any) -> Any:
    """Rows from all over a table, with one that lacks a value in each column that has such; the first of anything else.

    A copy: a view would keep the whole table in memory.
    """
    if isinstance(features, dict):
        return {name: sample_rows(part) for name, part in features.items()}
    if is_dataset(features):
        from torch.utils.data import Subset

        return Subset(features, range(min(ROWS, len(features))))
    if not hasattr(features, "iloc") or not hasattr(features, "columns"):
        head = features[:ROWS]
        return head.copy() if hasattr(head, "copy") else head
    import numpy as np

    rows = len(features)
    chosen = set(np.linspace(0, rows - 1, min(rows, ROWS)).astype(int).tolist())
    found = 0
    for at in range(features.shape[1]):
        missing = features.iloc[:, at].isna().to_numpy(dtype=bool)
        if missing.any():
            chosen.add(int(missing.argmax()))
            found += 1
        if found == COLUMNS:
            break
    return features.iloc[sorted(chosen)].copy()
