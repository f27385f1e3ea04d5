"""Decodes the counts of a replica. Others can write to a bucket, so counts that no replica can have are refused."""

from __future__ import annotations

import msgspec

from mlapp.baseline import Baseline
from mlapp.baseline.slots import count_slots
from mlapp.monitoring.count_limit import MOST as HEAVIEST
from mlapp.monitoring.counts import Counts
from mlapp.monitoring.place import Window

FORMAT = 1
FASTEST = 10_000_000
"""Maximum rows that a replica can answer in a second."""
MOST_FIELDS = 10_000
"""Maximum refused fields of a replica."""


class FalseCountsError(ValueError):
    """The counts are damaged or invented. The text names the problem."""


class FutureFormatError(ValueError):
    """A newer mlapp has written the counts."""


def decode_counts(content: bytes, version: str, window: Window, baseline: Baseline | None) -> Counts:
    """The counts of a replica.

    Args:
        version, window: from the name of the file.
        baseline: of the version.

    Raises:
        FalseCountsError, FutureFormatError: they cannot be used.
    """
    try:
        counts = msgspec.json.decode(content, type=Counts)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FalseCountsError(str(error).rstrip(".")) from None
    if counts.format > FORMAT:
        raise FutureFormatError(f"has format {counts.format}; this mlapp reads formats up to {FORMAT}")
    if (counts.version, counts.since, counts.until) != (version, window.since, window.until):
        raise FalseCountsError("its content belongs to another version or window")
    if counts.rows + counts.refused > FASTEST * window.seconds:
        raise FalseCountsError(f"a replica cannot answer {counts.rows + counts.refused} rows in {window.seconds} s")
    if counts.squares > HEAVIEST * counts.rows:
        raise FalseCountsError(f"the squares of the weights are {counts.squares} for {counts.rows} rows")
    _check_refused_fields(counts)
    _check_columns(counts, baseline)
    return counts


def _check_refused_fields(counts: Counts) -> None:
    if len(counts.fields) > MOST_FIELDS:
        raise FalseCountsError(f"{len(counts.fields)} fields are refused")
    for field, refused in counts.fields.items():
        if refused > counts.refused:
            raise FalseCountsError(f"{field:.40} is refused in {refused} of {counts.refused} refused rows")


def _check_columns(counts: Counts, baseline: Baseline | None) -> None:
    columns = () if baseline is None else (*baseline.features, *baseline.predictions)
    sizes = {column.name: count_slots(column) for column in columns}
    for name, column_counts in counts.columns.items():
        if sum(column_counts) > counts.rows:
            raise FalseCountsError(f"{name:.40} is counted in {sum(column_counts)} of {counts.rows} rows")
        if name in sizes and len(column_counts) != sizes[name]:
            raise FalseCountsError(f"{name:.40} has {len(column_counts)} counts instead of {sizes[name]}")
