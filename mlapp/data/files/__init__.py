"""Files: CSV, Parquet, JSON lines, Arrow and Excel, on disk, in S3, Google Cloud Storage, Azure or on the web.

    app.data_reader.files("s3://bucket/orders/day=*/*.parquet")
    app.data_reader.files("data/{month}.csv", month=str)

or, inside your own reader, `files.read("data/*.csv")`. Folders named `key=value` become columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, overload

from mlapp.data.files.formats import FORMATS, detect_file_format, read_format_tables
from mlapp.data.files.locations import File, find_files
from mlapp.data.files.path_values import NAME, add_partition_columns, convert_partition_values, fill_path_values
from mlapp.data.frames import Types, join_frame_tables, make_frame, make_frames, report_frame_rows
from mlapp.data.secrets import Address, redact_secrets
from mlapp.data.source import (
    Reader,
    check_source_chunk_rows,
    make_streaming_reader,
    refuse_misfit_source_parameters,
)
from mlapp.errors import DataError, MissingExtraError, UsageError, suggest_nearest

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@overload
def read(
    path: str | PathLike[str],
    *,
    format: str | None = None,
    columns: Sequence[str] | None = None,
    chunks: None = None,
    types: Types | None = None,
    encoding: str | None = None,
    sheet: str | int = 0,
    **parameters: Any,
) -> pd.DataFrame: ...
@overload
def read(
    path: str | PathLike[str],
    *,
    format: str | None = None,
    columns: Sequence[str] | None = None,
    chunks: int,
    types: Types | None = None,
    encoding: str | None = None,
    sheet: str | int = 0,
    **parameters: Any,
) -> Iterator[pd.DataFrame]: ...
def read(
    path: str | PathLike[str],
    *,
    format: str | None = None,
    columns: Sequence[str] | None = None,
    chunks: int | None = None,
    types: Types | None = None,
    encoding: str | None = None,
    sheet: str | int = 0,
    **parameters: Any,
) -> pd.DataFrame | Iterator[pd.DataFrame]:
    """Read files with the same columns, in the order of their paths.

    Args:
        path: a path or URL; `*` and `**` match files, `${NAME}` comes from the environment, `{name}` from the
            parameters. Their values are plain names, which cannot lead to other locations. A folder means all its
            files.
        format: csv, parquet, json, arrow or excel; by default, from the files' names.
        columns: the columns to read; by default, all.
        chunks: yield DataFrames of this number of rows, for data that is larger than memory.
        types: pandas types for single columns, such as `{"code": "str"}`.
        encoding: the encoding of CSV; by default, UTF-8.
        sheet: name or number of the sheet in a workbook.

    Raises:
        DataError: a file is missing, unreadable, empty or truncated, or has a different schema; the message names it.
        UsageError: a column, format or parameter is unknown.
        MissingExtraError: the packages of the extra `files` are not installed.
    """
    check_source_chunk_rows(chunks)
    if format is not None and format not in FORMATS:
        raise UsageError(
            f"'{format}' is not a format.{suggest_nearest(format, FORMATS)}", f"Known: {', '.join(FORMATS)}."
        )
    template = fspath(path)
    refuse_misfit_source_parameters(NAME.findall(template), parameters, "the path")
    address = fill_path_values(template, parameters)
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise MissingExtraError("Reading files", "files") from None
    stream = _stream_files(address, format, columns, chunks is None, types, encoding, sheet)
    return make_frame(join_frame_tables(stream), types) if chunks is None else make_frames(stream, chunks, types)


def source(path: str | PathLike[str], **options: Any) -> Reader:
    """The source behind `app.data_reader.files`: each `{name}` in the path is a parameter of the reader.

    Raises:
        DeclarationError: a name in the path has neither a type nor a value, or a parameter is not in the path.
    """
    option_names = ("format", "columns", "chunks", "types", "encoding", "sheet")
    settings = {name: options.pop(name) for name in option_names if name in options}
    template = fspath(path)
    return make_streaming_reader(
        "files",
        f"The files {redact_secrets(template)}.",
        lambda values, rows: read(template, **{**settings, "chunks": rows}, **values),
        parameters=options,
        placeholders=NAME.findall(template),
        where="the path",
        chunks=settings.get("chunks"),
        options=option_names,
    )


def _stream_files(
    address: Address,
    format: str | None,
    columns: Sequence[str] | None,
    whole: bool,
    types: Types | None,
    encoding: str | None,
    sheet: str | int,
) -> Iterator[pa.Table]:
    """All rows of all files. The columns of each file are checked against the first."""
    with find_files(address) as files:
        partitions = convert_partition_values([file.partitions for file in files])
        first: tuple[File, pa.Schema] | None = None
        for file, values in zip(files, partitions, strict=True):
            kind = format or detect_file_format(file)
            parts = read_format_tables(
                file,
                kind,
                columns=columns,
                whole=whole,
                encoding=encoding,
                sheet=sheet,
                kinds=_resolve_file_types(types),
            )  # fmt: skip
            for part in report_frame_rows(parts):
                if first is None:
                    first = (file, part.schema)
                yield add_partition_columns(_align_file_columns(part, file, first), values, columns)


def _align_file_columns(table: pa.Table, file: File, first: tuple[File, pa.Schema]) -> pa.Table:
    """The table with its columns in the order of the first file.

    Raises:
        DataError: a column is missing, new, or has a type that is incompatible with the first file's.
    """
    import pyarrow as pa

    first_file, schema = first
    if table.schema.equals(schema):
        return table
    for name in schema.names:
        if name not in table.column_names:
            raise DataError(
                f"{file.display_name} lacks the column '{name}', which {first_file.display_name} has.",
                "Give columns= that every file has, or read the files separately.",
            )
    for name in table.column_names:
        if name not in schema.names:
            raise DataError(
                f"{file.display_name} has a column '{name}', which {first_file.display_name} lacks.",
                "Give columns= that every file has, or read the files separately.",
            )
    for field in schema:
        kind = table.schema.field(field.name).type
        try:
            pa.unify_schemas(
                [pa.schema([field]), pa.schema([pa.field(field.name, kind)])], promote_options="permissive"
            )
        except pa.ArrowException:
            raise DataError(
                f"{file.display_name}: the column '{field.name}' is {kind}, but {field.type} in "
                f"{first_file.display_name}.",
                "Write the files with one type, or read them separately.",
            ) from None
    return table.select(schema.names)


def _resolve_file_types(types: Types | None) -> dict[str, Any]:
    """The requested types as Arrow types, so that `007` in a CSV file is never read as a number."""
    import pandas as pd
    import pyarrow as pa

    kinds = {}
    for name, dtype_name in (types or {}).items():
        try:
            dtype = pd.api.types.pandas_dtype(dtype_name)
            kinds[name] = pa.from_numpy_dtype(getattr(dtype, "numpy_dtype", dtype))
        except (TypeError, pa.ArrowException):
            kinds[name] = pa.string()
    return kinds
