"""File formats: each is read as Arrow tables, in parts if the format allows it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mlapp.data.files import csv
from mlapp.data.files.locations import File
from mlapp.data.memory import return_free_memory
from mlapp.errors import DataError, MissingExtraError, UsageError, suggest_nearest

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

ROWS = 100_000
"""Rows per part."""
GROUP = 8 << 20
"""Maximum bytes of the columns that are read together from a whole Parquet file."""

_SUFFIXES = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".pq": "parquet",
    ".jsonl": "json", ".ndjson": "json", ".json": "json", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
    ".xlsx": "excel", ".xlsm": "excel", ".xls": "excel", ".xlsb": "excel", ".ods": "excel",
}  # fmt: skip
_COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}

FORMATS = sorted(set(_SUFFIXES.values()))


def detect_file_format(file: File) -> str:
    """The format of a file, from its name.

    Raises:
        DataError: the name does not determine a format.
    """
    suffixes = PurePosixPath(file.path).suffixes
    plain = [suffix.lower() for suffix in suffixes if suffix.lower() not in _COMPRESSED]
    if plain and plain[-1] in _SUFFIXES:
        return _SUFFIXES[plain[-1]]
    raise DataError(
        f"The name of {file.display_name} has no known suffix.", f"Set format= to one of {', '.join(FORMATS)}."
    )


def read_format_tables(
    file: File,
    kind: str,
    *,
    columns: Sequence[str] | None,
    whole: bool,
    encoding: str | None,
    sheet: str | int,
    kinds: Mapping[str, pa.DataType],
) -> Iterator[pa.Table]:
    """Read one file of the format `kind`. Yields at least one table, which can be empty.

    Raises:
        DataError: the file is empty, truncated, not of this format, or lacks a column.
    """
    import pyarrow as pa

    if file.size == 0:
        raise DataError(f"{file.display_name} is empty.", "Check the program that wrote it.")
    with file.open_stream() as stream:
        try:
            if kind == "parquet":
                yield from _read_parquet_file(stream, file, columns, whole)
                return
            plain = _decompress_file(stream, file)
            match kind:
                case "csv":
                    parts = csv.read_csv_tables(plain, file.display_name, whole=whole, encoding=encoding, kinds=kinds)
                case "json":
                    parts = _read_json_file(plain, file)
                case "arrow":
                    parts = _read_arrow_file(plain)
                case _:
                    parts = _read_excel_file(plain, file, sheet)
            for part in parts:
                yield _select_file_columns(part, file, columns)
        except (pa.ArrowException, EOFError, OSError) as error:
            if isinstance(error, DataError):
                raise
            raise _explain_broken_file(file, kind, error) from None


def _read_parquet_file(
    stream: pa.NativeFile, file: File, columns: Sequence[str] | None, whole: bool
) -> Iterator[pa.Table]:
    import pyarrow as pa
    from pyarrow import parquet

    parquet_file = parquet.ParquetFile(stream)
    schema = parquet_file.schema_arrow
    for name in columns or ():
        _refuse_missing_file_column(name, schema.names, file)
    names = [name for name in columns if name in schema.names] if columns is not None else schema.names
    if whole and names and len(set(names)) == len(names):
        yield _read_parquet_columns(parquet_file, names)
        return
    yield schema.empty_table().select(names) if columns is not None else schema.empty_table()
    # Request one row group at a time, because the reader keeps the compressed bytes of all requested groups.
    for group in range(parquet_file.num_row_groups):
        for batch in parquet_file.iter_batches(ROWS, [group], columns=names if columns is not None else None):
            table = pa.Table.from_batches([batch])
            yield table.select(names) if columns is not None else table


def _read_parquet_columns(parquet_file: parquet.ParquetFile, names: list[str]) -> pa.Table:
    """All rows, read a few columns at a time, so that the compressed bytes of the whole file are never in memory."""
    import pyarrow as pa

    metadata = parquet_file.metadata
    sizes = dict.fromkeys(names, 0)
    for group in range(metadata.num_row_groups):
        for at in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(at)
            name = chunk.path_in_schema
            name = name if name in sizes else name.partition(".")[0]
            if name in sizes:
                sizes[name] += chunk.total_uncompressed_size
    groups: list[list[str]] = [[]]
    size = 0
    for name in names:
        if size + sizes[name] > GROUP and groups[-1]:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += sizes[name]
    columns: dict[str, pa.ChunkedArray] = {}
    for group_names in groups:
        part = parquet_file.read(group_names)
        columns |= {name: part.column(name) for name in group_names}
        del part
        return_free_memory()
    return pa.table(columns)


def _read_json_file(stream: pa.NativeFile, file: File) -> Iterator[pa.Table]:
    """JSON lines, or one JSON list of objects. A nested object becomes columns such as `address.city`."""
    import pyarrow as pa
    from pyarrow import json as arrow

    start = stream.read(1024).lstrip()
    stream.seek(0)
    if not start:
        raise DataError(f"{file.display_name} is empty.", "Check the program that wrote it.")
    if start[:1] == b"[":
        try:
            records = json.loads(stream.read())
        except ValueError as error:
            raise DataError(f"{file.display_name} is not JSON: {error}.", "Fix it, or copy it again.") from None
        table = pa.Table.from_pylist(records)
    else:
        table = arrow.read_json(stream, arrow.ReadOptions(block_size=16 << 20))
    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    yield table


def _read_arrow_file(stream: pa.NativeFile) -> Iterator[pa.Table]:
    """Arrow's file format, including Feather, or its stream format."""
    import pyarrow as pa

    is_file = stream.read(6) == b"ARROW1"
    stream.seek(0)
    reader = pa.ipc.open_file(stream) if is_file else pa.ipc.open_stream(stream)
    yield reader.schema.empty_table()
    batches = (reader.get_batch(number) for number in range(reader.num_record_batches)) if is_file else reader
    for batch in batches:
        yield pa.Table.from_batches([batch])


def _read_excel_file(stream: pa.NativeFile, file: File, sheet: str | int) -> Iterator[pa.Table]:
    import io

    import pandas as pd
    import pyarrow as pa

    try:
        import python_calamine
    except ImportError:
        raise MissingExtraError("Reading Excel", "files") from None
    content = io.BytesIO(stream.read())
    try:
        sheets = python_calamine.CalamineWorkbook.from_filelike(content).sheet_names
    except (python_calamine.CalamineError, OSError) as error:
        raise _explain_broken_file(file, "excel", error) from None
    if isinstance(sheet, str) and sheet not in sheets:
        raise DataError(
            f"{file.display_name} has no sheet '{sheet}'.{suggest_nearest(sheet, sheets)}",
            f"It has {', '.join(sheets)}.",
        )
    if isinstance(sheet, int) and not -len(sheets) <= sheet < len(sheets):
        raise DataError(
            f"{file.display_name} has {len(sheets)} sheets, and no sheet {sheet}.", "Sheet numbers start at 0."
        )
    content.seek(0)
    table = pd.read_excel(content, sheet_name=sheet, engine="calamine", dtype_backend="pyarrow")
    yield pa.Table.from_pandas(table, preserve_index=False)


def _decompress_file(stream: pa.NativeFile, file: File) -> pa.NativeFile:
    import pyarrow as pa

    compression = _COMPRESSED.get(PurePosixPath(file.path).suffix.lower())
    if compression is None:
        return stream
    # As bytes, because readers inspect the beginning and then start again.
    return pa.BufferReader(pa.CompressedInputStream(stream, compression).read())


def _select_file_columns(table: pa.Table, file: File, columns: Sequence[str] | None) -> pa.Table:
    if columns is None:
        return table
    for name in columns:
        _refuse_missing_file_column(name, table.column_names, file)
    return table.select([name for name in columns if name in table.column_names])


def _refuse_missing_file_column(name: str, names: Sequence[str], file: File) -> None:
    if name not in names and name not in file.partitions:
        raise UsageError(
            f"{file.display_name} has no column '{name}'.{suggest_nearest(name, names)}",
            f"It has {', '.join(map(str, names))}.",
        )


def _explain_broken_file(file: File, kind: str, error: Exception) -> DataError:
    line = " ".join(str(error).split()).rstrip(".")
    return DataError(
        f"{file.display_name} cannot be read as {kind}: {line}.",
        "The file may be truncated or have another format: copy it again, or set format=.",
    )
