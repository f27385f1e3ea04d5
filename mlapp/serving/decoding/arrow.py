"""Decodes Arrow IPC bodies (https://arrow.apache.org/docs/format/Columnar.html), in which a few bytes can expand to
gigabytes.

A compressed buffer declares its uncompressed size, and columns without buffers (nulls, run-end encoded) declare their
number of rows. Both are checked before anything is decompressed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from mlapp.serving.web.budget import CELLS_PER_OBJECT, Budget
from mlapp.serving.web.problems import HttpError, too_large_body_error

MAGIC = b"ARROW1"
DICTIONARY_BATCH, RECORD_BATCH = 2, 3


def read_arrow_table(body: bytes, limit: int, budget: Budget, check_width: Callable[[int], None]) -> Any:
    """The DataFrame in an IPC stream or file of scalar cells, without lists or structures.

    Args:
        limit: maximum uncompressed bytes of its buffers.
        check_width: raises for too many columns.

    Raises:
        HttpError: 413, it exceeds the limit, or the budget of cells or text; 400, a nested column.
            Any error of pyarrow: it is not Arrow.
    """
    import pyarrow as pa

    # A file is a stream between a magic word and a footer. The footer's offsets are untrusted.
    stream = body[8:] if body.startswith(MAGIC) else body
    size = max(len(body), _measure_unpacked_arrow(pa.ipc.MessageReader.open_stream(stream)))
    if size > limit:
        raise too_large_body_error(limit)
    reader = pa.ipc.open_stream(stream)
    check_width(len(reader.schema))
    table = reader.read_all()
    for field in table.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_nested(kind) or (isinstance(kind, pa.BaseExtensionType) and kind != pa.uuid()):
            raise HttpError(400, f"The column '{field.name:.60}' is of type {field.type!s:.60}: send plain values.")
        budget.take(table.num_rows * (CELLS_PER_OBJECT if _is_arrow_object_type(kind) else 1))
    for column in table.columns:
        for chunk in column.chunks:
            budget.take(size=_measure_viewed_arrow_texts(chunk))
    table.validate(full=True)  # without it, pyarrow follows offsets outside the body, which crashes the process
    for column in table.columns:
        for chunk in column.chunks:
            budget.take(size=_measure_referred_arrow_texts(chunk))
    return table.to_pandas()


def _is_arrow_object_type(kind: Any) -> bool:
    """Whether pandas stores each value of the type as a Python object."""
    import pyarrow as pa

    return not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_duration(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
    )


def _measure_viewed_arrow_texts(chunk: Any) -> int:
    """Bytes of the texts that a column's views refer to, each reference counted, and of its dictionary."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_dictionary(chunk.type):
        return int(chunk.dictionary.nbytes) + _measure_viewed_arrow_texts(chunk.dictionary)
    if not (pa.types.is_string_view(chunk.type) or pa.types.is_binary_view(chunk.type)) or not len(chunk):
        return 0
    views = np.frombuffer(chunk.buffers()[1], "<i4")[: 4 * (chunk.offset + len(chunk))]
    lengths = views.reshape(-1, 4)[chunk.offset :, 0]
    if len(lengths) < len(chunk) or (lengths < 0).any():
        raise ValueError("a view leads out of its buffer")
    return int(lengths.sum(dtype="int64"))


def _measure_referred_arrow_texts(chunk: Any) -> int:
    """Bytes of the texts that a dictionary's codes refer to."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(chunk.type) or not len(chunk.dictionary):
        return 0
    words = chunk.dictionary
    if pa.types.is_string_view(words.type) or pa.types.is_binary_view(words.type):
        words = words.cast(pa.large_binary())
    if not (
        pa.types.is_string(words.type)
        or pa.types.is_large_string(words.type)
        or pa.types.is_binary(words.type)
        or pa.types.is_large_binary(words.type)
    ):
        return 8 * len(chunk)
    return int(pc.sum(pc.take(pc.binary_length(words), chunk.indices)).as_py() or 0)


def _measure_unpacked_arrow(messages: Any) -> int:
    """Bytes of all buffers, by the declared size of compressed ones."""
    size = 0
    for message in iter(lambda: next(messages, None), None):
        metadata = memoryview(message.metadata)
        root = _follow_arrow_offset(metadata, 0)
        kind, content = (
            metadata[_find_arrow_field_offset(metadata, root, 1)],
            _find_arrow_table_offset(metadata, root, 2),
        )
        if kind == DICTIONARY_BATCH:
            content = _find_arrow_table_offset(metadata, content, 1)
        if kind in (DICTIONARY_BATCH, RECORD_BATCH):
            size += _measure_arrow_batch(metadata, content, memoryview(message.body))
    return size


def _measure_arrow_batch(metadata: memoryview, batch: int, body: memoryview) -> int:
    """Bytes of one record batch's buffers (https://github.com/apache/arrow/blob/main/format/Message.fbs)."""
    is_compressed = bool(_find_arrow_field_offset(metadata, batch, 3))
    buffers_field = _find_arrow_field_offset(metadata, batch, 2)
    if not buffers_field:
        return 0
    buffers = _follow_arrow_offset(metadata, buffers_field)
    (count,) = struct.unpack_from("<I", metadata, buffers)
    size = 0
    for header in range(buffers + 4, buffers + 4 + 16 * count, 16):
        offset, length = struct.unpack_from("<qq", metadata, header)
        declared_size = struct.unpack_from("<q", body, offset)[0] if is_compressed and length else -1
        size += length if declared_size < 0 else declared_size
    return size


def _find_arrow_table_offset(data: memoryview, table: int, number: int) -> int:
    """The offset of the table that a field refers to."""
    return _follow_arrow_offset(data, _find_arrow_field_offset(data, table, number))


def _find_arrow_field_offset(data: memoryview, table: int, number: int) -> int:
    """The offset of a table's field; 0 if it is absent (https://flatbuffers.dev/internals/)."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    slot = 4 + 2 * number
    if slot >= struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset: int = struct.unpack_from("<H", data, vtable + slot)[0]
    return table + offset if offset else 0


def _follow_arrow_offset(data: memoryview, at: int) -> int:
    offset: int = struct.unpack_from("<I", data, at)[0]
    return at + offset
