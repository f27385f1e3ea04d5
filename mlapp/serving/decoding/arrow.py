"""Arrow IPC bodies (https://arrow.apache.org/docs/format/Columnar.html), of which a few bytes can mean gigabytes.

Compressed buffers tell their size in a header each, and columns without buffers (of nulls, of nothing but runs) have
as many rows as they say. Both are looked at before anything is unpacked.
"""

from __future__ import annotations

import struct
from typing import Any

from mlapp.serving.web.http import too_large_error
from mlapp.serving.web.problems import HttpError

MAGIC = b"ARROW1"
DICTIONARY_BATCH, RECORD_BATCH = 2, 3
BITS = 8
"""Cells that a byte can hold: a column of booleans has that many."""


def read_arrow_table(body: bytes, limit: int) -> Any:
    """The DataFrame in an IPC stream or file, with one cell a value: no lists, no structures.

    Args:
        limit: most bytes that it may unpack to.

    Raises:
        HttpError: 413, it unpacks to more; 400, a nested column. Whatever pyarrow raises: it is not Arrow.
    """
    import pyarrow as pa

    # A file is a stream between a magic word and a footer, which would lead the reader anywhere.
    stream = body[8:] if body.startswith(MAGIC) else body
    size = max(len(body), _unpacked_size(pa.ipc.MessageReader.open_stream(stream)))
    if size > limit:
        raise too_large_error(limit)
    found = pa.ipc.open_stream(stream).read_all()
    for field in found.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType):
            raise HttpError(400, f"The column '{field.name:.60}' is of type {field.type!s:.60}: send plain values.")
    if found.num_rows * found.num_columns > BITS * size:
        raise too_large_error(limit)
    found.validate(full=True)  # offsets that lead out of the body would be followed, and end the process
    return found.to_pandas()


def _unpacked_size(messages: Any) -> int:
    """Bytes of all buffers, those that are compressed as they say."""
    size = 0
    for message in iter(lambda: next(messages, None), None):
        metadata = memoryview(message.metadata)
        root = _follow_offset(metadata, 0)
        kind, content = metadata[_field_offset(metadata, root, 1)], _table_offset(metadata, root, 2)
        if kind == DICTIONARY_BATCH:
            content = _table_offset(metadata, content, 1)
        if kind in (DICTIONARY_BATCH, RECORD_BATCH):
            size += _batch_size(metadata, content, memoryview(message.body))
    return size


def _batch_size(metadata: memoryview, batch: int, body: memoryview) -> int:
    """Bytes of one record batch's buffers (https://github.com/apache/arrow/blob/main/format/Message.fbs)."""
    is_compressed = bool(_field_offset(metadata, batch, 3))
    place = _field_offset(metadata, batch, 2)
    if not place:
        return 0
    buffers = _follow_offset(metadata, place)
    (count,) = struct.unpack_from("<I", metadata, buffers)
    size = 0
    for at in range(buffers + 4, buffers + 4 + 16 * count, 16):
        offset, length = struct.unpack_from("<qq", metadata, at)
        told = struct.unpack_from("<q", body, offset)[0] if is_compressed and length else -1
        size += length if told < 0 else told
    return size


def _table_offset(data: memoryview, table: int, number: int) -> int:
    """Where the table lies that a field refers to."""
    return _follow_offset(data, _field_offset(data, table, number))


def _field_offset(data: memoryview, table: int, number: int) -> int:
    """Where a table's field lies; 0 where it is absent (https://flatbuffers.dev/internals/)."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    slot = 4 + 2 * number
    if slot >= struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset: int = struct.unpack_from("<H", data, vtable + slot)[0]
    return table + offset if offset else 0


def _follow_offset(data: memoryview, at: int) -> int:
    offset: int = struct.unpack_from("<I", data, at)[0]
    return at + offset
