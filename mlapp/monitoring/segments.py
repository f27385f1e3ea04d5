"""The prediction log as immutable Parquet segments.

Each half second with traffic becomes a segment, named by its replica and a range of numbers. Periodically, the replica
merges many of its segments into one, and then deletes them. A reader ignores a segment if another one contains its
numbers. So a replica that is killed at any time leaves complete segments, and no row counts twice.

Deleting rows from a segment makes a later generation of it, which replaces the earlier one. If the segments within a
merged one are complete, and one of them has a later generation than it, then the merged one has deleted rows, and a
reader ignores it instead.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mlapp.errors import MissingExtraError
from mlapp.monitoring.business_keys import select_key_names
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.schema.dtypes import is_missing_value
from mlapp.schema.text_forms import write_text_form

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = b"1"
META = b"mlapp.log"
MANY = 1024
"""Rows from which a segment is not compressed. So many rows come from a server under load, and compression would take
two thirds of the instructions of logging them."""
OWN = ("id", "request", "row", "time", "version", "latency", "weight", "truth")
"""The log's own columns, and the column of truths. A feature of such a name has the column `feature.NAME`."""
KEY = "key."
"""Prefix of the columns of business keys."""
NAME = re.compile(r"(?P<replica>.+)-(?P<first>\d{9})-(?P<last>\d{9})(~(?P<generation>\d+))?\.parquet")


@dataclass(frozen=True)
class Segment:
    """Fields of a segment's name. A later generation is the same segment without deleted rows."""

    replica: str
    first: int
    last: int
    generation: int = 0

    @property
    def name(self) -> str:
        generation = f"~{self.generation}" if self.generation else ""
        return f"{self.replica}-{self.first:09}-{self.last:09}{generation}.parquet"

    @classmethod
    def parse(cls, name: str) -> Segment | None:
        match = NAME.fullmatch(name)
        if match is None:
            return None
        return cls(match["replica"], int(match["first"]), int(match["last"]), int(match["generation"] or 0))


def select_current_segments(names: Iterable[str]) -> list[str]:
    """The segments of a folder without those that others replace."""
    segments = sorted(
        (segment for name in names if (segment := Segment.parse(name))),
        key=lambda segment: (segment.replica, segment.first, -segment.last, -segment.generation),
    )
    groups: list[list[Segment]] = []  # each a segment, and those with numbers that it contains
    for segment in segments:
        outer = groups[-1][0] if groups else None
        if outer is not None and outer.replica == segment.replica and segment.last <= outer.last:
            groups[-1].append(segment)
        else:
            groups.append([segment])
    return [segment.name for group in groups for segment in _select_current_group(*group)]


def _select_current_group(outer: Segment, *inner: Segment) -> Sequence[Segment]:
    """The segment, or those within it if they are complete and rows were deleted from one of them since the merge.

    Args:
        inner: by their first number, and the latest generation first.
    """
    parts: list[Segment] = []
    for segment in inner:
        is_earlier_generation = (segment.first, segment.last) == (outer.first, outer.last)
        if not is_earlier_generation and segment.first == (parts[-1].last + 1 if parts else outer.first):
            parts.append(segment)
    is_complete = bool(parts) and parts[-1].last == outer.last
    has_deleted_rows = any(segment.generation > outer.generation for segment in parts)
    return parts if is_complete and has_deleted_rows else [outer]


def format_segment_hour(time: float) -> str:
    """The hour of a time as a folder name."""
    return datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%dT%H")


def require_pyarrow(feature: str) -> None:
    """Check that pyarrow is installed, without importing it, which would delay the start of a server.

    Raises:
        MissingExtraError: it is not installed.
    """
    if find_spec("pyarrow") is None:
        raise MissingExtraError(feature, "monitor")


def make_segment_table(
    columns: Mapping[str, Any],
    predictions: Sequence[Any],
    own: Mapping[str, Any],
    keys: Sequence[Mapping[str, Any] | None],
    rules: ColumnPrivacy,
) -> pa.Table:
    """Rows of the log as an Arrow table.

    Args:
        columns: features by name, each an array, a Series or a list.
        predictions: one per row, as in an answer.
        own: the log's fixed columns, as Arrow or NumPy arrays; `time` in seconds since 1970.
        keys: business keys of each row, or empty.
        rules: applied to features, predictions and keys.
    """
    import pyarrow as pa

    times = (own["time"] * 1e6).astype("int64")
    arrays: dict[str, Any] = {
        "id": own["id"],
        "request": own["request"],
        "row": own["row"],
        "time": pa.array(times).cast(pa.timestamp("us", tz="UTC")),
        "version": own["version"],
        "latency": own["latency"],
        "weight": own["weight"],
    }
    for name in select_key_names(name for row in keys for name in (row or ())):
        if not rules.is_dropped(name):
            values = rules.redact_values(name, [None if row is None else row.get(name) for row in keys])
            arrays[f"{KEY}{name}"] = pa.array(
                [None if value is None else _format_segment_text(value) for value in values], pa.string()
            )
    log_names = name_segment_columns(columns)
    for name, values in columns.items():
        if not rules.is_dropped(name):
            arrays[log_names[name]] = (
                rules.redact_values(name, _list_segment_values(values)) if rules.has_rules_for([name]) else values
            )
    for name, values in _make_segment_prediction_arrays(predictions).items():
        if not rules.is_dropped(name):
            arrays[name] = (
                rules.redact_values(name, _list_segment_values(values)) if rules.has_rules_for([name]) else values
            )
    columns_found = {name: _convert_to_segment_array(values) for name, values in arrays.items()}
    # A column without missing values needs no definition levels in Parquet.
    fields = [pa.field(name, array.type, nullable=array.null_count > 0) for name, array in columns_found.items()]
    return pa.table(list(columns_found.values()), pa.schema(fields, {META: FORMAT}))


def _name_segment_column(name: str) -> str:
    """A feature's column in the log, before names that differ only in letter case are made distinct."""
    folded = name.lower()
    return f"feature.{name}" if folded in OWN or folded.startswith(("prediction", KEY)) else name


def name_segment_columns(names: Iterable[str]) -> dict[str, str]:
    """The column of each feature in the log: SQL does not distinguish `Weight` from `weight`.

    Args:
        names: of all features, in the schema's order.
    """
    columns: dict[str, str] = {}
    folded_names: set[str] = set()
    for name in names:
        column = _name_segment_column(name)
        while column.lower() in folded_names:
            column += "~"
        folded_names.add(column.lower())
        columns[name] = column
    return columns


def encode_segment_table(table: pa.Table, *, is_quick: bool = False) -> bytes:
    """A table as Parquet.

    Args:
        is_quick: write faster but larger: LZ4 with byte-stream-split floats, and no compression of many rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    out = io.BytesIO()
    is_plain = is_quick and table.num_rows >= MANY
    has_split_floats = is_quick and not is_plain
    parquet.write_table(
        table,
        out,
        compression="none" if is_plain else "lz4" if is_quick else "zstd",
        use_dictionary=False,
        use_byte_stream_split=[field.name for field in table.schema if pa.types.is_floating(field.type)]
        if has_split_floats
        else False,
        write_statistics=False,
    )
    return out.getvalue()


def merge_segment_tables(contents: Iterable[bytes]) -> bytes:
    """Several segments as one."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    tables = [parquet.ParquetFile(io.BytesIO(content)).read(use_threads=False) for content in contents]
    merged = pa.concat_tables(_bound_key_columns(tables), promote_options="permissive")
    return encode_segment_table(merged.replace_schema_metadata({META: FORMAT}))


def _bound_key_columns(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """The tables, without the columns of keys that exceed the limit of the merged table."""
    names = [name for table in tables for name in table.column_names if name.startswith(KEY)]
    dropped = set(names).difference(select_key_names(names))
    return [table.drop_columns([name for name in table.column_names if name in dropped]) for table in tables]


def _make_segment_prediction_arrays(predictions: Sequence[Any]) -> dict[str, Any]:
    import numpy as np

    first = next((row for row in predictions if row is not None), None)
    if isinstance(first, dict):
        return {
            f"prediction.{name}": [row.get(name) if isinstance(row, dict) else None for row in predictions]
            for name in first
        }
    if isinstance(first, float):
        with contextlib.suppress(struct.error, OverflowError):
            return {"prediction": np.frombuffer(struct.pack(f"={len(predictions)}d", *predictions))}
    return {"prediction": list(predictions)}


def _convert_to_segment_array(values: Any) -> Any:
    """A column as an Arrow array; NaN is missing. Values of several types become texts."""
    import numpy as np
    import pyarrow as pa

    if isinstance(values, pa.Array):
        return values
    if isinstance(values, np.ndarray):
        has_missing = values.dtype.kind not in "iub" and (values.dtype.kind != "f" or bool(np.isnan(values).any()))
        return pa.array(np.ascontiguousarray(values), from_pandas=has_missing)
    try:
        array = pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        array = None
    if array is not None and not isinstance(array.type, pa.BaseExtensionType):  # periods become numbers in SQL
        return array
    return pa.array(
        [None if is_missing_value(value) else _format_segment_text(value) for value in _list_segment_values(values)],
        pa.string(),
    )


def _format_segment_text(value: Any) -> str:
    text = value if isinstance(value, str) else write_text_form(value)
    return json.dumps(value, default=str) if text is None else text


def _list_segment_values(values: Any) -> list[Any]:
    return list(values.tolist()) if hasattr(values, "tolist") else list(values)
