"""CSV, with whatever people put into it: other delimiters and encodings, and rows of the wrong length."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlapp.errors import DataError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 8 << 20
"""Bytes read at once; the types of a stream are inferred from the first block."""

_DELIMITERS = ",;\t|"


def tables(
    stream: pa.NativeFile, shown: str, *, whole: bool, encoding: str | None, kinds: Mapping[str, pa.DataType]
) -> Iterator[pa.Table]:
    """Read a CSV file with a header.

    Args:
        stream: its bytes.
        shown: its name in errors.
        whole: infer each column's type from all rows. Else rows come as a stream of the types of the first ones.
        encoding: UTF-8 when absent, or UTF-16 where the file says so itself.
        kinds: types of single columns that are not to be inferred.

    Raises:
        DataError: no content, a row with more or fewer fields (the error names its line), a wrong encoding.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow

    start = stream.read(64 << 10)
    if not start.strip():
        raise DataError(f"{shown} is empty.", "Check what wrote it.")
    encoding = encoding or _said_encoding(start)
    delimiter = _delimiter(start, encoding, shown)
    stream.seek(0)
    read = arrow.ReadOptions(encoding=encoding, block_size=BLOCK)
    parse = arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    convert = arrow.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False, column_types=dict(kinds))
    try:
        if whole:
            parts: Any = [arrow.read_csv(stream, read, parse, convert)]
        else:
            parts = (pa.Table.from_batches([batch]) for batch in arrow.open_csv(stream, read, parse, convert))
        for part in parts:
            if any(pa.types.is_binary(field.type) for field in part.schema):
                raise UnicodeDecodeError(encoding, b"", 0, 1, "")
            yield part
    except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
        stream.seek(0)
        raise _explained(stream, shown, encoding, delimiter, str(error)) from None


def _said_encoding(start: bytes) -> str:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8"


def _delimiter(start: bytes, encoding: str, shown: str) -> str:
    """The delimiter that the header has most of, outside quotes."""
    try:
        header = start.decode(encoding, errors="replace").lstrip("\ufeff").splitlines()[0]
    except LookupError:
        raise UsageError(f"'{encoding}' is not an encoding.", "Give one that Python knows, as cp1252.") from None
    bare = "".join(header.split('"')[::2])
    return max(_DELIMITERS, key=bare.count)


def _explained(stream: pa.NativeFile, shown: str, encoding: str, delimiter: str, told: str) -> DataError:
    """Find the line that is at fault: Arrow reads blocks side by side and does not know it."""
    content = io.BufferedReader(stream)
    number = _line_of_other_encoding(content, encoding)
    if number is not None:
        return DataError(
            f"{shown}, line {number} is not {encoding.upper()}.",
            "Give the file's encoding, as encoding='cp1252'; if only some lines differ, mend those.",
        )
    content.seek(0)
    rows = csv.reader(io.TextIOWrapper(content, encoding, newline=""), delimiter=delimiter)
    try:
        header = next(rows)
        for row in rows:
            if row and len(row) != len(header):
                return DataError(
                    f"{shown}, line {rows.line_num} has {len(row)} fields, where the header has {len(header)}.",
                    "Mend that line; a field that holds the delimiter needs quotes.",
                )
    except (csv.Error, StopIteration, UnicodeDecodeError):
        pass
    return DataError(
        f"{shown} is not a CSV that can be read: {' '.join(told.split())}", "Give types= for that column, or mend it."
    )


def _line_of_other_encoding(content: io.BufferedReader, encoding: str) -> int | None:
    if encoding.lower().replace("_", "-") not in ("utf-8", "utf8", "ascii"):
        return None
    for number, line in enumerate(content, 1):
        try:
            line.decode(encoding)
        except UnicodeDecodeError:
            return number
    return None
