"""Deletes a person's rows from the log and the truths."""

from __future__ import annotations

import io
from collections.abc import Mapping
from itertools import chain, repeat
from typing import Any

import msgspec

from mlapp.errors import StoreError, UsageError
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.database import (
    LOG_TYPES,
    TRUTH_TYPES,
    list_truth_keys,
    require_column_types,
)
from mlapp.monitoring.file_limits import read_bounded_metadata
from mlapp.monitoring.place import Place
from mlapp.monitoring.segments import (
    FORMAT,
    META,
    Segment,
    encode_segment_table,
    require_pyarrow,
    select_current_segments,
)
from mlapp.plain_numbers import parse_plain_number


def forget_person_rows(place: Place, keys: Mapping[str, str], rules: ColumnPrivacy) -> int:
    """Delete the rows with all these keys from the log and the truths; returns the number of deleted log rows.

    Args:
        keys: business keys, features or `id`, by name.

    Raises:
        UsageError: a key that is never stored. StoreError: the place cannot be written.
    """
    require_pyarrow("Deleting rows of the log")
    dropped = [name for name in keys if rules.is_dropped(name)]
    if dropped:
        raise UsageError(f"'{dropped[0]}' is never stored: monitor.columns drops it.", "Give another key.")
    stored_keys = {name: str(rules.redact_values(name, [value])[0]) for name, value in keys.items()}
    deleted: set[tuple[str, int, int]] = set()
    processed: set[str] = set()
    # At least twice, because a writer may have merged segments meanwhile; see `SegmentMerger`.
    for is_first in chain([True], repeat(False)):
        new = [key for key in _list_forgettable_segments(place) if key not in processed]
        processed.update(new)
        tables = {key: rows for key in new if (rows := _find_forgotten_rows(place, key, stored_keys))}
        deleted.update(*tables.values())
        # Truths first: without the rows, a repeated command would not know the requests of the other ones.
        requests = {(request, row) for request, row, _ in deleted}
        for key in list_truth_keys(place):
            _forget_in_truths(place, key, stored_keys, requests)
        for key in tables:
            _forget_in_segment(place, key, stored_keys)
        if not tables and not is_first:
            break
    return len(deleted)


def _list_forgettable_segments(place: Place) -> list[str]:
    """The keys of all segments that a reader uses, or may use after another one is deleted. Deletes the others."""
    keys = []
    for version in place.names("log"):
        for hour in place.names("log", version):
            names = place.names("log", version, hour)
            used = [segment for name in select_current_segments(names) if (segment := Segment.parse(name))]
            for segment in filter(None, map(Segment.parse, names)):
                key = place.key("log", version, hour, segment.name)
                if any(_is_segment_replaced(segment, other) for other in used):
                    place.storage.delete_prefix(key)
                else:
                    keys.append(key)
    return keys


def _is_segment_replaced(segment: Segment, used: Segment) -> bool:
    """Whether a used segment is a later generation of a segment, or lies within it.

    A segment within a used one stays: its writer takes a missing one for a sign that rows were deleted.
    """
    if segment.replica != used.replica or segment == used:
        return False
    return segment.first <= used.first and used.last <= segment.last


def _find_forgotten_rows(place: Place, key: str, keys: Mapping[str, str]) -> set[tuple[str, int, int]]:
    """The request, row and time (as stored) of the rows of a segment that have the keys."""
    import pyarrow as pa

    content = place.storage.read_key(key)
    if content is None:
        return set()
    table = _read_forgettable_table(place, key, content, LOG_TYPES)
    forgotten = table.filter(pa.array(_mask_forgotten_rows(table, keys), pa.bool_()))
    times = forgotten["time"].cast(pa.int64())
    return set(zip(*(column.to_pylist() for column in (forgotten["request"], forgotten["row"], times)), strict=True))


def _forget_in_segment(place: Place, key: str, keys: Mapping[str, str]) -> None:
    """Replace a segment by a generation of it without the rows that have the keys.

    It exists also without rows, because the earlier generation can come back: as a part of a merged segment, or from a
    writer that repeats an attempt whose answer was lost.
    """
    import pyarrow as pa

    content = place.storage.read_key(key)
    if content is None:
        return
    table = _read_forgettable_table(place, key, content, LOG_TYPES)
    rest = table.filter(pa.array([not is_match for is_match in _mask_forgotten_rows(table, keys)], pa.bool_()))
    folder, _, name = key.rpartition("/")
    segment = Segment.parse(name)
    assert segment is not None
    newer = Segment(segment.replica, segment.first, segment.last, segment.generation + 1)
    place.storage.create_key(
        f"{folder}/{newer.name}", encode_segment_table(rest.replace_schema_metadata({META: FORMAT}))
    )
    place.storage.delete_prefix(key)


def _mask_forgotten_rows(table: Any, keys: Mapping[str, str]) -> list[bool]:
    mask = [True] * len(table)
    for name, value in keys.items():
        columns = [column for column in (f"key.{name}", name, f"feature.{name}") if column in table.column_names]
        if name == "id":
            columns = ["id", "request"]
        if not columns:
            return [False] * len(table)
        own = [False] * len(table)
        for column in columns:
            cells = table[column].to_pylist()
            own = [mine or _is_forgotten_value(cell, value) for mine, cell in zip(own, cells, strict=True)]
        mask = [both and mine for both, mine in zip(mask, own, strict=True)]
    return mask


def _is_forgotten_value(cell: Any, value: str) -> bool:
    """Whether a stored value is the given one. A column of numbers can store 42 as 42.0."""
    if isinstance(cell, float) and (number := parse_plain_number(value.removeprefix("-"))) is not None:
        return cell == (-number if value.startswith("-") else number)
    return str(cell) == value


def _read_forgettable_table(place: Place, key: str, content: bytes, types: Mapping[str, str]) -> Any:
    """A segment, or a file of truths.

    Raises:
        StoreError: it cannot be read, so its rows cannot be deleted.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        read_bounded_metadata(io.BytesIO(content))
        table = parquet.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"{key} in {place.storage!r} cannot be read: {error}", "Delete this file, and run the command again."
        ) from None
    require_column_types(table.schema, f"{key} in {place.storage!r}", types)
    return table


def _forget_in_truths(place: Place, key: str, keys: Mapping[str, str], requests: set[tuple[str, int]]) -> None:
    import pyarrow.parquet as parquet

    content = place.storage.read_key(key)
    if content is None:
        return
    table = _read_forgettable_table(place, key, content, TRUTH_TYPES)
    kept_rows = []
    for at, row in enumerate(table.select(["request", "row", "keys"]).to_pylist()):
        truth_keys = {} if row["keys"] is None else msgspec.json.decode(row["keys"])
        is_match = bool(truth_keys) and all(str(truth_keys.get(name)) == value for name, value in keys.items())
        if not is_match and (row["request"], row["row"]) not in requests:
            kept_rows.append(at)
    if len(kept_rows) == len(table):
        return
    if kept_rows:
        out = io.BytesIO()
        parquet.write_table(table.take(kept_rows), out, compression="zstd")
        place.storage.create_key(f"{key.removesuffix('.parquet')}-rest.parquet", out.getvalue())
    place.storage.delete_prefix(key)
