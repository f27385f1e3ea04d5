"""Deletes a person's rows from the log and the truths."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import msgspec

from mlapp.errors import StoreError, UsageError
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.database import (
    LOG_TYPES,
    TRUTH_TYPES,
    list_database_log_keys,
    list_truth_keys,
    require_column_types,
)
from mlapp.monitoring.place import Place
from mlapp.monitoring.segments import FORMAT, META, Segment, encode_segment_table, require_pyarrow
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
    requests: set[tuple[str, int]] = set()
    rows = 0
    processed: set[str] = set()
    # Twice, because a writer may have merged segments meanwhile; see `SegmentMerger`.
    for _ in range(2):
        new = [key for key in list_database_log_keys(place) if key not in processed]
        processed.update(new)
        for key in new:
            rows += _forget_in_segment(place, key, stored_keys, requests)
    for key in list_truth_keys(place):
        _forget_in_truths(place, key, stored_keys, requests)
    return rows


def _forget_in_segment(place: Place, key: str, keys: Mapping[str, str], requests: set[tuple[str, int]]) -> int:
    import pyarrow as pa

    content = place.storage.read_key(key)
    if content is None:
        return 0
    table = _read_forgettable_table(place, key, content, LOG_TYPES)
    mask = _mask_forgotten_rows(table, keys)
    count = int(sum(mask))
    if not count:
        return 0
    forgotten = table.filter(pa.array(mask, pa.bool_()))
    requests.update(zip(forgotten["request"].to_pylist(), forgotten["row"].to_pylist(), strict=True))
    rest = table.filter(pa.array([not is_match for is_match in mask], pa.bool_()))
    folder, _, name = key.rpartition("/")
    segment = Segment.parse(name)
    assert segment is not None
    if len(rest):
        # A new generation of the same segment: readers use the newest one, so no row counts twice meanwhile.
        newer = Segment(segment.replica, segment.first, segment.last, segment.generation + 1)
        place.storage.create_key(
            f"{folder}/{newer.name}", encode_segment_table(rest.replace_schema_metadata({META: FORMAT}))
        )
    place.storage.delete_prefix(key)
    return count


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
