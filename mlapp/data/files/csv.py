"""Reads CSV files with any common delimiter and encoding, and names the line of an error."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlapp.errors import DataError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 8 << 20
"""Bytes per block; the types of a stream are inferred from the first block."""

_DELIMITERS = ",;\t|"


def read_csv_tables(
    stream: pa.NativeFile, display_name: str, *, whole: bool, encoding: str | None, kinds: Mapping[str, pa.DataType]
) -> Iterator[pa.Table]:
    """Read a CSV file with a header.

    Args:
        stream: the file's bytes.
        display_name: the file's name in errors.
        whole: infer each column's type from all rows. Otherwise rows are streamed, with types from the first rows.
        encoding: by default UTF-8, or UTF-16 if the file has its byte order mark.
        kinds: types of single columns that are not inferred.

    In a text column, `NA` is a text, and only an empty unquoted field is missing. A column of digits is text if a value
    has a leading zero, such as postal codes. `mlapp.schema.csv` reads prediction inputs by the same rules.

    Raises:
        DataError: the file is empty, a row has too many or too few fields (the error names its line), or the encoding
            is wrong.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow

    start = stream.read(64 << 10)
    if not start.strip():
        raise DataError(f"{display_name} is empty.", "Check the program that wrote it.")
    encoding = encoding or _detect_csv_encoding(start)
    delimiter = _detect_csv_delimiter(start, encoding)
    stream.seek(0)
    read = arrow.ReadOptions(encoding=encoding, block_size=BLOCK)
    parse = arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    try:
        if whole:
            parts: Any = [_read_whole_csv(stream, read, parse, kinds)]
        else:
            parts = _read_csv_blocks(stream, read, parse, kinds)
        for part in parts:
            if any(pa.types.is_binary(field.type) for field in part.schema):
                raise UnicodeDecodeError(encoding, b"", 0, 1, "")
            yield part
    except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
        stream.seek(0)
        raise _explain_csv_error(stream, display_name, encoding, delimiter, str(error)) from None


def _read_whole_csv(stream: pa.NativeFile, read: Any, parse: Any, kinds: Mapping[str, pa.DataType]) -> pa.Table:
    """All rows. Text columns with missing values and numbers with leading zeros are read again as text.

    A second read is necessary because Arrow applies the same markers of missing values to columns of all types.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow

    convert = arrow.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False, column_types=dict(kinds))
    table = arrow.read_csv(stream, read, parse, convert)
    if len(set(table.column_names)) < len(table.column_names):
        return table  # the caller reports it
    inferred = [name for name in table.column_names if name not in kinds]
    names = [
        name
        for name in table.column_names
        if _is_csv_text_type(table.field(name).type) and table.column(name).null_count
    ]
    numbers = [
        name for name in inferred if pa.types.is_integer(table.field(name).type) or _is_csv_float_column(table, name)
    ]
    if numbers and _may_have_csv_leading_zeros(stream, parse.delimiter):
        names += numbers
    if not names:
        return table
    stream.seek(0)
    convert = arrow.ConvertOptions(
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
        column_types=dict.fromkeys(names, pa.string()),
        include_columns=names,
    )
    texts = arrow.read_csv(stream, read, parse, convert)
    for name in names:
        if name not in numbers or _has_csv_leading_zeros(texts.column(name)):
            table = table.set_column(table.column_names.index(name), name, texts.column(name))
    return table


def _read_csv_blocks(
    stream: pa.NativeFile, read: Any, parse: Any, kinds: Mapping[str, pa.DataType]
) -> Iterator[pa.Table]:
    """The rows block by block, with types from the first block. Unlike in a whole file, `""` counts as missing."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as arrow

    start = stream.read(BLOCK)
    first = start[: start.rfind(b"\n") + 1] if len(start) == BLOCK else start
    first_table = _read_whole_csv(pa.BufferReader(first), read, parse, kinds) if first.count(b'"') % 2 == 0 else None
    texts = [] if first_table is None else [field.name for field in first_table.schema if _is_csv_text_type(field.type)]
    stream.seek(0)
    types = {**dict.fromkeys(texts, pa.string()), **kinds}
    convert = arrow.ConvertOptions(strings_can_be_null=False, column_types=types)
    for batch in arrow.open_csv(stream, read, parse, convert):
        part = pa.Table.from_batches([batch])
        for at, field in enumerate(part.schema):
            if _is_csv_text_type(field.type):
                column = part.column(at)
                part = part.set_column(at, field.name, pc.if_else(pc.equal(column, ""), None, column))
        yield part


def _is_csv_text_type(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_csv_float_column(table: pa.Table, name: str) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(table.field(name).type))


def _may_have_csv_leading_zeros(stream: pa.NativeFile, delimiter: str) -> bool:
    """Whether a field can start with a zero and a digit. Searches the bytes, which is much faster than parsing."""
    pattern = re.compile(rb'(?:^|[\n\r"' + re.escape(delimiter.encode()) + rb"])0[0-9]")
    stream.seek(0)
    end = b""
    while block := stream.read(BLOCK):
        if pattern.search(end + block):
            return True
        end = block[-3:]
    return False


def _has_csv_leading_zeros(column: pa.ChunkedArray) -> bool:
    import pyarrow.compute as pc

    return bool(pc.any(pc.match_substring_regex(column, "^0[0-9]")).as_py())


def _detect_csv_encoding(start: bytes) -> str:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8"


def _detect_csv_delimiter(start: bytes, encoding: str) -> str:
    """The most frequent delimiter in the header, outside quotes."""
    try:
        header = start.decode(encoding, errors="replace").lstrip("\ufeff").splitlines()[0]
    except LookupError:
        raise UsageError(
            f"'{encoding}' is not a known encoding.", "Give one of Python's encodings, such as cp1252."
        ) from None
    bare = "".join(header.split('"')[::2])
    return max(_DELIMITERS, key=bare.count)


def _explain_csv_error(
    stream: pa.NativeFile, display_name: str, encoding: str, delimiter: str, reason: str
) -> DataError:
    """The error with the number of the wrong line, which Arrow does not know because it reads blocks in parallel."""
    content = io.BufferedReader(stream)
    number = _find_undecodable_csv_line(content, encoding)
    if number is not None:
        return DataError(
            f"{display_name}, line {number} is not {encoding.upper()}.",
            "Give the file's encoding, such as encoding='cp1252'; if only some lines differ, fix those.",
        )
    content.seek(0)
    rows = csv.reader(io.TextIOWrapper(content, encoding, newline=""), delimiter=delimiter)
    try:
        header = next(rows)
        for row in rows:
            if row and len(row) != len(header):
                return DataError(
                    f"{display_name}, line {rows.line_num} has {len(row)} fields, where the header has {len(header)}.",
                    "Fix that line; fields that contain the delimiter need quotes.",
                )
    except (csv.Error, StopIteration, UnicodeDecodeError):
        pass
    return DataError(
        f"{display_name} is not a readable CSV file: {' '.join(reason.split())}",
        "Give types= for that column, or fix its values.",
    )


def _find_undecodable_csv_line(content: io.BufferedReader, encoding: str) -> int | None:
    if encoding.lower().replace("_", "-") not in ("utf-8", "utf8", "ascii"):
        return None
    for number, line in enumerate(content, 1):
        try:
            line.decode(encoding)
        except UnicodeDecodeError:
            return number
    return None
