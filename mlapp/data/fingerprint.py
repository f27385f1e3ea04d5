"""Computes the fingerprint of a table: a short text that changes with the table.

A model's manifest contains it, to show whether two models were trained on the same data, and the cache of reads
verifies files with it. Two tables have the same fingerprint if their columns have the same names, types, order and
values. The index is ignored, because no stage of the pipeline uses it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

BATCH = 1 << 17
"""Rows to hash at once, which limits the memory use."""


def fingerprint_table(table: pd.DataFrame) -> str:
    """The SHA-256 of the table's content, as 64 hex digits; deterministic across processes and runs.

    The values are read in place, at most `BATCH` rows of a column at a time: the table is never copied.
    Columns are hashed in parallel threads, because hashing releases Python's GIL.
    """
    with ThreadPoolExecutor() as threads:
        # By position, not by name: a table can have duplicate column names.
        digests = list(
            threads.map(lambda position: _fingerprint_column(table.iloc[:, position]), range(table.shape[1]))
        )
    digest = hashlib.sha256(f"{len(table)} rows".encode())
    for name, column_digest in zip(table.columns, digests, strict=True):
        digest.update(_encode_fingerprint_object(name) + column_digest)
    return digest.hexdigest()


def _fingerprint_column(column: pd.Series) -> bytes:
    """The hash of one column: its type, then its values."""
    import pandas as pd

    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        digest = hashlib.sha256(f"category ordered={dtype.ordered}".encode())
        digest.update(_fingerprint_column(pd.Series(dtype.categories)))
        batches: Iterator[Any] = _iterate_fingerprint_numbers(column.cat.codes.to_numpy())
    else:
        digest = hashlib.sha256(str(dtype).encode())
        batches = _iterate_fingerprint_buffers(column)
    for batch in batches:
        digest.update(batch)
    return digest.digest()


def _iterate_fingerprint_buffers(column: pd.Series) -> Iterator[Any]:
    """The values of a column as byte buffers that together represent exactly these values."""
    import numpy as np
    import pandas as pd

    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biufcmM":
        return _iterate_fingerprint_numbers(column.to_numpy())
    if isinstance(dtype, pd.DatetimeTZDtype):
        return _iterate_fingerprint_numbers(column.array.asi8)
    if isinstance(dtype, pd.StringDtype):
        return chain.from_iterable(
            _encode_fingerprint_texts(column.iloc[start : start + BATCH]) for start in range(0, len(column), BATCH)
        )
    if getattr(dtype, "na_value", None) is pd.NA and dtype.kind in "biuf":
        return _iterate_fingerprint_masked_numbers(column)
    return _encode_fingerprint_objects(column)


def _iterate_fingerprint_numbers(values: np.ndarray[Any, Any]) -> Iterator[Any]:
    """Bytes of numbers and times in memory. Batches of non-contiguous columns are copied."""
    import numpy as np

    for start in range(0, len(values), BATCH):
        yield np.ascontiguousarray(values[start : start + BATCH]).view(np.uint8).data


def _iterate_fingerprint_masked_numbers(column: pd.Series) -> Iterator[Any]:
    """The mask and the values of nullable numbers. Missing values are 0, because their memory is arbitrary."""
    dtype: Any = column.dtype
    kind = dtype.numpy_dtype
    for start in range(0, len(column), BATCH):
        batch = column.iloc[start : start + BATCH]
        missing = batch.isna().to_numpy()
        yield missing.data
        yield from _iterate_fingerprint_numbers(batch.array.to_numpy(dtype=kind, na_value=kind.type(0)))


def _encode_fingerprint_texts(column: pd.Series) -> tuple[Any, Any]:
    """The UTF-8 length of each text, or -1 if missing, and the joined texts; independent of the storage type."""
    import numpy as np

    missing = column.isna().to_numpy()
    try:
        lengths, texts = _encode_fingerprint_arrow_texts(column)
    except (ImportError, UnicodeEncodeError):  # no pyarrow, or a lone surrogate, which it refuses
        encoded = [
            b"" if is_missing else text.encode("utf-8", "surrogatepass")
            for text, is_missing in zip(column, missing, strict=True)
        ]
        lengths, texts = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)), b"".join(encoded)
    lengths[missing] = -1
    return lengths.data, texts


def _encode_fingerprint_arrow_texts(column: pd.Series) -> tuple[np.ndarray[Any, Any], Any]:
    """Lengths and joined bytes of texts with pyarrow, about twenty times faster than a loop."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.fill_null(pa.array(column).cast("large_binary"), b"")  # the bytes of a missing value are arbitrary
    texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    _, offsets, content = texts.buffers()
    ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.diff(ends), memoryview(content or b"")[ends[0] : ends[-1]]


def _encode_fingerprint_objects(column: pd.Series) -> Iterator[bytes]:
    for value in column:
        content = _encode_fingerprint_object(value)
        yield len(content).to_bytes(8, "little") + content


def _encode_fingerprint_object(value: object) -> bytes:
    """One Python value with its type: 1, 1.0, True and "1" differ, and memory addresses are not included."""
    import numpy as np

    kind = type(value).__qualname__.encode() + b":"
    if isinstance(value, str):
        return kind + value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes | bytearray):
        return kind + bytes(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return kind + f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    if isinstance(value, list | tuple | np.ndarray):
        return kind + _join_fingerprint_lengths(_encode_fingerprint_object(item) for item in value)
    if isinstance(value, dict):
        return kind + _join_fingerprint_lengths(
            _encode_fingerprint_object(key) + b"=" + _encode_fingerprint_object(item) for key, item in value.items()
        )
    if isinstance(value, set | frozenset):
        return kind + _join_fingerprint_lengths(sorted(map(_encode_fingerprint_object, value)))
    if type(value).__repr__ is object.__repr__:  # it contains an address
        return kind + _encode_fingerprint_object(getattr(value, "__dict__", {}))
    return kind + repr(value).encode("utf-8", "surrogatepass")


def _join_fingerprint_lengths(parts: Any) -> bytes:
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)
