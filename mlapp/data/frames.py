"""Converts Arrow data to a DataFrame with column types that match the source.

| source | column type |
|---|---|
| integers, true/false | `int64`, `bool`, …; `Int64`, `boolean`, … if a value is missing |
| decimals | exact decimals (`ArrowDtype(decimal128)`), which support arithmetic and scikit-learn |
| dates, times with or without zone | `datetime64[us]`, `datetime64[us, UTC]`; a date becomes midnight |
| text | the text type of pandas |
| dictionaries, enumerations | `category` |
| UUID | text |
| lists and structures | Python objects |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlapp.data.source import report_source_rows
from mlapp.errors import DataError, UsageError, suggest_nearest

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Types = Mapping[str, Any]


def make_frame(table: pa.Table, types: Types | None = None, *, always_nullable: bool = False) -> pd.DataFrame:
    """Turn an Arrow table into a DataFrame.

    Each Arrow column is released as soon as it is converted. If the caller keeps no reference to the table, the data is
    in memory once, plus one column.

    Args:
        table: the data.
        types: pandas types of single columns, which override the types in the module's table.
        always_nullable: use nullable types for all integers and booleans, even without missing values. For a part of a
            stream, because the next part can have missing values.

    Raises:
        DataError: two columns have the same name, or a value does not fit the requested type.
        UsageError: `types` contains an unknown column.
    """
    import pandas as pd

    names = table.column_names
    _refuse_duplicate_frame_columns(names)
    for name in types or {}:
        if name not in names:
            raise UsageError(
                f"types= names the column '{name}', which is not in the data.{suggest_nearest(name, names)}",
                f"It has {', '.join(names)}.",
            )
    rows, remaining = table.num_rows, table.columns[::-1]
    del table
    columns = {name: _make_frame_column(name, remaining.pop(), always_nullable) for name in names}
    frame: pd.DataFrame = pd.DataFrame(columns, copy=False) if columns else pd.DataFrame(index=range(rows))
    for name, dtype in (types or {}).items():
        frame[name] = _cast_frame_column(frame[name], dtype)
    return frame


def make_frames(
    tables: Iterable[pa.Table],
    rows: int,
    types: Types | None = None,
    infer: Callable[[pa.Table], pa.Table] | None = None,
) -> Iterator[pd.DataFrame]:
    """Like `make_frame`, as a stream: DataFrames of `rows` rows each, except the last, with the same types throughout.

    Args:
        tables: the data, as it arrives.
        rows: number of rows per DataFrame.
        types: pandas types of single columns.
        infer: converts the columns of the first part to better types. The other parts must fit these types.

    Raises:
        DataError: a value does not fit the type that its column had in the first part, or a column is new.
    """
    import pyarrow as pa

    kinds: dict[str, pa.DataType] | None = None
    for table in resize_frame_tables(tables, rows):
        if kinds is None:
            part = infer(table) if infer else table
            kinds = {field.name: field.type for field in part.schema}
        else:
            part = _cast_like_first_frame(table, kinds)
        kinds |= {field.name: field.type for field in part.schema if pa.types.is_null(kinds[field.name])}
        yield make_frame(part, types, always_nullable=True)


def _cast_like_first_frame(table: pa.Table, kinds: Mapping[str, pa.DataType]) -> pa.Table:
    """The table with the columns of the first part; missing columns are added without values."""
    import pyarrow as pa

    for name in table.column_names:
        if name not in kinds:
            raise DataError(
                f"The column '{name}' appears only after the first part.", "Name the columns to read: fields=[…]."
            )
    for name, kind in kinds.items():
        if name not in table.column_names:
            table = table.append_column(pa.field(name, kind), pa.nulls(table.num_rows, kind))
    return _cast_frame_table(
        table.select(list(kinds)), {name: kind for name, kind in kinds.items() if not pa.types.is_null(kind)}
    )


def resize_frame_tables(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Split and join tables to `rows` rows each, except the last. A stream without rows yields one empty table."""
    waiting: list[pa.Table] = []
    waiting_rows = 0
    has_yielded = False
    for table in tables:
        waiting.append(table)
        waiting_rows += table.num_rows
        if waiting_rows < rows:
            continue
        whole = join_frame_tables(waiting)
        for start in range(0, waiting_rows - waiting_rows % rows, rows):
            yield whole.slice(start, rows)
        rest = whole.slice(waiting_rows - waiting_rows % rows)
        waiting, waiting_rows, has_yielded = [rest], rest.num_rows, True
    if waiting_rows or not has_yielded:
        yield join_frame_tables(waiting)


def join_frame_tables(tables: Iterable[pa.Table]) -> pa.Table:
    """Join tables. A column with several types gets their common type, or text if there is none."""
    import pyarrow as pa

    parts = list(tables)
    schemas = [part.schema for part in parts]
    if all(schema.equals(schemas[0]) for schema in schemas):
        return pa.concat_tables(parts)
    names = dict.fromkeys(name for schema in schemas for name in schema.names)
    kinds = {
        name: _find_widest_frame_type([schema.field(name).type for schema in schemas if name in schema.names])
        for name in names
    }
    return pa.concat_tables([_cast_frame_table(part, kinds) for part in parts], promote_options="default")


def make_frame_array(values: Sequence[Any]) -> pa.Array:
    """Python values as an Arrow array of their type, or as text if they have several types."""
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values])


def _find_widest_frame_type(kinds: list[pa.DataType]) -> pa.DataType:
    import pyarrow as pa

    types = {kind for kind in kinds if not pa.types.is_null(kind)}
    if len(types) < 2:
        return types.pop() if types else pa.null()
    if all(pa.types.is_decimal(kind) for kind in types):
        make_decimal = pa.decimal256 if any(kind.bit_width > 128 for kind in types) else pa.decimal128
        return make_decimal(76 if make_decimal is pa.decimal256 else 38, max(kind.scale for kind in types))
    try:
        fields = [pa.schema([pa.field("x", kind)]) for kind in types]
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return pa.string()


def _cast_frame_table(table: pa.Table, kinds: Mapping[str, pa.DataType]) -> pa.Table:
    import pyarrow as pa

    for at, field in enumerate(table.schema):
        kind = kinds.get(field.name, field.type)
        if kind == field.type:
            continue
        try:
            table = table.set_column(at, pa.field(field.name, kind), table.column(at).cast(kind))
        except pa.ArrowException:
            raise DataError(
                f"The column '{field.name}' is {kind} in the first rows and {field.type} later.",
                f"Read it as one type; in a query, use CAST({field.name} AS …).",
            ) from None
    return table


def report_frame_rows(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables unchanged, each reported as progress."""
    for table in tables:
        report_source_rows(table.num_rows)
        yield table


def _make_frame_column(name: str, column: pa.ChunkedArray, always_nullable: bool) -> pd.Series:
    import pandas as pd
    import pyarrow as pa

    try:
        column = _to_plain_frame_column(column)
        kind = column.type
        if pa.types.is_decimal(kind):
            return pd.Series(pd.array(column, dtype=pd.ArrowDtype(kind)))
        nullable = always_nullable or column.null_count > 0
        mapper = (
            _map_nullable_frame_types().get
            if nullable and (pa.types.is_integer(kind) or pa.types.is_boolean(kind))
            else None
        )
        series: pd.Series = column.to_pandas(types_mapper=mapper)
        return series
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"The column '{name}' does not fit into a DataFrame: {error}", "Read it as text.") from None


def _to_plain_frame_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert dates to midnight, UUIDs to text, and other extension types to their storage types."""
    import pyarrow as pa

    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        storage = pa.chunked_array([chunk.storage for chunk in column.chunks], type=kind.storage_type)
        if kind.extension_name != "arrow.uuid":
            return _to_plain_frame_column(storage)
        from uuid import UUID

        texts = [None if value is None else str(UUID(bytes=value)) for value in storage.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    if pa.types.is_timestamp(kind) and kind.unit in ("s", "ms"):
        return column.cast(pa.timestamp("us", kind.tz))
    if pa.types.is_date(kind):
        return column.cast(pa.timestamp("us"))
    if pa.types.is_null(kind):
        return column.cast(pa.string())
    return column


def _map_nullable_frame_types() -> dict[Any, Any]:
    import pandas as pd
    import pyarrow as pa

    sizes = (8, 16, 32, 64)
    types: dict[Any, Any] = {getattr(pa, f"int{size}")(): getattr(pd, f"Int{size}Dtype")() for size in sizes}
    types |= {getattr(pa, f"uint{size}")(): getattr(pd, f"UInt{size}Dtype")() for size in sizes}
    return types | {pa.bool_(): pd.BooleanDtype()}


def _cast_frame_column(column: pd.Series, dtype: Any) -> pd.Series:
    try:
        return column.astype(dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"The column '{column.name}' does not fit its type {dtype!r} in types=: {error}",
            "Choose another type, or change the data.",
        ) from None


def _refuse_duplicate_frame_columns(names: list[str]) -> None:
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise DataError(
            f"Two columns have the name '{duplicates[0]}'.",
            "Give each a unique name; in a query: SELECT a.id AS a_id, b.id AS b_id.",
        )
