"""Limits of a Parquet file of the log: a client that can write to a bucket must not fill the memory of its readers."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow.parquet as parquet

MAX_FOOTER = 32 << 20
"""Maximum bytes of a file's footer, which describes its columns and is parsed as a whole. A column takes about 100."""
MAX_ROWS = 2_000_000
"""Maximum rows. mlapp writes at most a million to a file; a run of equal values takes no space in it."""
MAX_TABLE = 1 << 30
"""Maximum bytes of the uncompressed columns."""


def read_bounded_metadata(file: IO[bytes]) -> parquet.FileMetaData:
    """The metadata of a Parquet file.

    Raises:
        OSError: it is larger than any file that mlapp writes. ArrowException: it is no Parquet file.
    """
    import pyarrow.parquet as parquet

    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    footer = int.from_bytes(file.read(4), "little")
    if MAX_FOOTER < footer <= size:
        raise OSError(f"its footer has {footer:,} bytes; mlapp reads at most {MAX_FOOTER:,}")
    file.seek(0)
    metadata = parquet.read_metadata(file)
    if metadata.num_rows > MAX_ROWS:
        raise OSError(f"it has {metadata.num_rows:,} rows; mlapp reads at most {MAX_ROWS:,}")
    table = sum(metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups))
    if table > MAX_TABLE:
        raise OSError(f"its columns have {table:,} bytes; mlapp reads at most {MAX_TABLE:,}")
    return metadata
