"""A second baseline: the counts of the same weekday and hour in earlier weeks."""

from __future__ import annotations

import msgspec

from mlapp.baseline import Baseline, Column
from mlapp.monitoring.counts import Counts


def make_seasonal_baseline(baseline: Baseline, counts: Counts) -> Baseline:
    """The baseline with counts of live rows instead of training rows."""
    return msgspec.structs.replace(
        baseline,
        features=[_replace_seasonal_counts(column, counts) for column in baseline.features],
        predictions=[_replace_seasonal_counts(column, counts) for column in baseline.predictions],
    )


def _replace_seasonal_counts(column: Column, counts: Counts) -> Column:
    live = counts.columns.get(column.name)
    if live is None or len(live) != len(column.counts) + 3:
        return column
    others = live[-3] if column.kind == "category" else 0
    return msgspec.structs.replace(column, rows=sum(live), missing=live[-1], counts=live[:-3], others=others)
