"""Deletes a person's rows."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import msgspec

from mlapp.errors import UsageError
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.database import list_log_keys, list_truth_keys
from mlapp.monitoring.place import Place
from mlapp.monitoring.segments import FORMAT, META, Segment, encode_table, require_pyarrow


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
    kept = {name: str(rules.apply(name, [value])[0]) for name, value in keys.items()}
    requests: set[tuple[str, int]] = set()
    rows = 0
    for key in list_log_keys(place):
        rows += _forget_in_segment(place, key, kept, requests)
    for key in list_truth_keys(place):
        _forget_in_truths(place, key, kept, requests)
    return rows


def _forget_in_segment(place: Place, key: str, keys: Mapping[str, str], requests: set[tuple[str, int]]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    content = place.storage.read_key(key)
    if content is None:
        return 0
    table = parquet.read_table(io.BytesIO(content))
    mask = _mask_forgotten_rows(table, keys)
    found = int(sum(mask))
    if not found:
        return 0
    some = table.filter(pa.array(mask, pa.bool_()))
    requests.update(zip(some["request"].to_pylist(), some["row"].to_pylist(), strict=True))
    rest = table.filter(pa.array([not is_match for is_match in mask], pa.bool_()))
    folder, _, name = key.rpartition("/")
    segment = Segment.parse(name)
    assert segment is not None
    if len(rest):
        # A new generation of the same numbers: readers use the newest, so nothing counts twice meanwhile.
        newer = Segment(segment.replica, segment.first, segment.last, segment.generation + 1)
        place.storage.create_key(f"{folder}/{newer.name}", encode_table(rest.replace_schema_metadata({META: FORMAT})))
    place.storage.delete_prefix(key)
    return found


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
            own = [mine or str(cell) == value for mine, cell in zip(own, table[column].to_pylist(), strict=True)]
        mask = [both and mine for both, mine in zip(mask, own, strict=True)]
    return mask


def _forget_in_truths(place: Place, key: str, keys: Mapping[str, str], requests: set[tuple[str, int]]) -> None:
    import pyarrow.parquet as parquet

    content = place.storage.read_key(key)
    if content is None:
        return
    table = parquet.read_table(io.BytesIO(content))
    kept = []
    for at, row in enumerate(table.select(["request", "row", "keys"]).to_pylist()):
        named = {} if row["keys"] is None else msgspec.json.decode(row["keys"])
        is_theirs = bool(named) and all(str(named.get(name)) == value for name, value in keys.items())
        if not is_theirs and (row["request"], row["row"]) not in requests:
            kept.append(at)
    if len(kept) == len(table):
        return
    if kept:
        out = io.BytesIO()
        parquet.write_table(table.take(kept), out, compression="zstd")
        place.storage.create_key(f"{key.removesuffix('.parquet')}-rest.parquet", out.getvalue())
    place.storage.delete_prefix(key)
