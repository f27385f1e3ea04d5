"""Writes encoded columns as a Parquet file: one row group, plain pages, no compression.

pyarrow spends 100,000 instructions on each column of a file, however few rows it has, and copies its values several
times. A segment of the log has dozens of columns and is written each half second. This module supports only what such a
segment needs. Source: parquet-format 2.10, parquet.thrift and Encodings.md; Apache Thrift, compact protocol.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"PAR1"
CREATOR = b"mlapp"
I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12
"""Types of Thrift."""
TYPES = {"int32": 1, "int64": 2, "float32": 4, "float64": 5, "text": 6, "time": 2}
"""Kind of a column to physical type."""
ANNOTATIONS = {
    "text": b"\x25\x00\x4c\x1c\x00\x00",  # UTF8; STRING
    "time": b"\x25\x14\x4c\x8c\x11\x1c\x2c\x00\x00\x00\x00",  # TIMESTAMP_MICROS; TIMESTAMP, in UTC
}
"""Fields `converted_type` and `logicalType` of a schema's element."""


class PlainColumn(NamedTuple):
    """A column of a file.

    Attributes:
        kind: a key of `TYPES`; `time` is microseconds since 1970.
        data: the values in the encoding PLAIN.
        levels: the output of `encode_levels` if values may be missing. `data` has no entry for a missing one.
    """

    name: str
    kind: str
    data: Any
    levels: bytes = b""


def encode_plain_file(columns: Sequence[PlainColumn], rows: int, metadata: Mapping[bytes, bytes]) -> list[Any]:
    """A Parquet file in pieces: bytes, and the columns' own data."""
    pieces: list[Any] = [MAGIC]
    chunks: list[bytes] = []
    at = len(MAGIC)
    for name, kind, data, levels in columns:
        length = len(levels) + memoryview(data).nbytes
        header = _make_page_header(length, rows)
        pieces += (header, levels, data) if levels else (header, data)
        size = len(header) + length
        # file_offset; meta_data: type, encodings, path and codec; values, sizes, and the offset of the page
        encoded_size = b"\x16" + _encode_number(size)
        offset = b"\x26" + _encode_number(at)
        chunks += (offset, _describe_chunk(name, kind, rows), encoded_size, encoded_size, offset, b"\0\0")
        at += size
    footer = _make_parquet_footer(
        _describe_schema(tuple([(name, kind, bool(levels)) for name, kind, _, levels in columns])),
        _start_list(len(columns), STRUCT) + b"".join(chunks),
        rows,
        at - len(MAGIC),
        metadata,
    )
    return [*pieces, footer, struct.pack("<I", len(footer)) + MAGIC]


def encode_levels(is_known: NDArray[np.bool_]) -> bytes:
    """The definition levels of a column: whether each row has a value."""
    bits = np.packbits(is_known, bitorder="little").tobytes()
    header = _encode_unsigned(len(bits) << 1 | 1)  # a run of bit-packed groups of 8
    return struct.pack("<I", len(header) + len(bits)) + header + bits


class EncodedTexts(Sequence[bytes]):
    """Texts that are encoded already.

    Args:
        pieces: results of `encode_texts`.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.data = b"".join(pieces)

    @cached_property
    def _texts(self) -> list[bytes]:
        found, at = [], 0
        while at < len(self.data):
            end = at + 4 + int.from_bytes(self.data[at : at + 4], "little")
            found.append(self.data[at + 4 : end])
            at = end
        return found

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, at: Any) -> Any:
        return self._texts[at]


def encode_texts(texts: Sequence[bytes]) -> bytes:
    """UTF-8 texts in the encoding PLAIN, in which the length of each text precedes it."""
    if isinstance(texts, EncodedTexts):
        return texts.data
    data = join_equal_texts(texts)
    return data if data is not None else b"".join([struct.pack("<I", len(text)) + text for text in texts])


def join_equal_texts(texts: Sequence[bytes]) -> bytes | None:
    """The encoding of texts of the same length and without NUL, which is faster; None for other texts."""
    if not texts:
        return None
    prefix = struct.pack("<I", len(texts[0]))
    data = prefix + prefix.join(texts)
    stride, rest = divmod(len(data), len(texts))
    if rest or stride != len(texts[0]) + 4:
        return None
    # The lengths are at equal distances only if all texts are as long as the first one, and no text contains a NUL.
    lengths = np.ndarray((len(texts),), "<u4", data, 0, (stride,))
    nuls = prefix.count(b"\0") * len(texts)
    letters = np.frombuffer(data, dtype=np.uint8)
    has_others = bool((lengths != lengths[0]).any()) or np.count_nonzero(letters) < len(data) - nuls
    return None if has_others else data


@lru_cache(maxsize=1024)
def _make_page_header(length: int, rows: int) -> bytes:
    size = _encode_number(length)
    # type DATA_PAGE; sizes; data_page_header: values, encoding PLAIN, levels RLE and RLE
    return (
        b"\x15\x00\x15" + size + b"\x15" + size + b"\x2c\x15" + _encode_number(rows) + b"\x15\x00\x15\x06\x15\x06\0\0"
    )


@lru_cache(maxsize=4096)
def _describe_chunk(name: str, kind: str, rows: int) -> bytes:
    encodings = b"\x19\x25\x00\x06"  # PLAIN, RLE
    path = b"\x19\x18" + _encode_text(name.encode())
    head = b"\x1c\x15" + _encode_number(TYPES[kind]) + encodings + path + b"\x15\x00"
    return head + b"\x16" + _encode_number(rows)


@lru_cache(maxsize=64)
def _describe_schema(columns: tuple[tuple[str, str, bool], ...]) -> bytes:
    """The list of the schema's elements: the root and its columns."""
    elements = [_start_list(1 + len(columns), STRUCT), b"\x48\x06schema\x15" + _encode_number(len(columns)) + b"\0"]
    for name, kind, is_optional in columns:
        elements.append(b"\x15" + _encode_number(TYPES[kind]) + b"\x25" + _encode_number(int(is_optional)))
        # name; the annotations' first field number follows it by 2
        elements.append(b"\x18" + _encode_text(name.encode()) + ANNOTATIONS.get(kind, b"") + b"\0")
    return b"".join(elements)


def _make_parquet_footer(schema: bytes, chunks: bytes, rows: int, size: int, metadata: Mapping[bytes, bytes]) -> bytes:
    number = b"\x16" + _encode_number(rows)
    group = chunks + b"\x16" + _encode_number(size) + number + b"\0"
    pairs = [b"\x18" + _encode_text(key) + b"\x18" + _encode_text(value) + b"\0" for key, value in metadata.items()]
    return b"".join(
        (
            b"\x15\x02\x19",  # version 1; schema
            schema,
            number,
            b"\x19" + _start_list(1, STRUCT) + b"\x19",  # row_groups; columns of the one
            group,
            b"\x19" + _start_list(len(pairs), STRUCT),  # key_value_metadata
            *pairs,
            b"\x18" + _encode_text(CREATOR) + b"\0",
        )
    )


def _start_list(length: int, kind: int) -> bytes:
    return bytes([length << 4 | kind]) if length < 15 else bytes([0xF0 | kind]) + _encode_unsigned(length)


def _encode_text(text: bytes) -> bytes:
    return _encode_unsigned(len(text)) + text


@lru_cache(maxsize=4096)
def _encode_number(number: int) -> bytes:
    """A non-negative number in zigzag encoding and variable length."""
    return _encode_unsigned(number << 1)


def _encode_unsigned(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
