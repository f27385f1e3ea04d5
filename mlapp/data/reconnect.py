"""Repeats a read whose connection broke before the first row; later, the error reports the number of rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mlapp.data.frames import Types, join_frame_tables, make_frame, make_frames, report_frame_rows
from mlapp.data.source import check_source_chunk_rows
from mlapp.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PAUSES = (0.2, 1.0, 3.0)
"""Seconds before each retry of a read after its connection broke."""


class LostConnectionError(Exception):
    """The connection broke after it was established; a retry can succeed."""


class UnreachableError(DataError):
    """The connection could not be established."""


def read_with_reconnects(
    display_name: str,
    stream: Callable[[], Iterator[pa.Table]],
    chunks: int | None,
    types: Types | None,
    infer: Callable[[pa.Table], pa.Table] | None = None,
) -> pd.DataFrame | Iterator[pd.DataFrame]:
    """All rows of a stream as one DataFrame, or as parts of `chunks` rows.

    Args:
        display_name: the address in errors, without secrets.
        stream: connects and reads from the beginning; called again after `LostConnectionError`.
        chunks: rows per part; by default one DataFrame with all rows.
        types: pandas types of single columns.
        infer: converts columns to better types, based on all rows or on those of the first part.
    """
    check_source_chunk_rows(chunks)
    parts = _iterate_with_reconnects(display_name, stream, chunks, types, infer)
    return next(parts) if chunks is None else parts


def _iterate_with_reconnects(
    display_name: str,
    stream: Callable[[], Iterator[pa.Table]],
    chunks: int | None,
    types: Types | None,
    infer: Callable[[pa.Table], pa.Table] | None,
) -> Iterator[pd.DataFrame]:
    yielded_rows = 0
    for attempt, pause in enumerate((*PAUSES, None), 1):
        try:
            tables = report_frame_rows(stream())
            if chunks is None:
                yield make_frame(infer(join_frame_tables(tables)) if infer else join_frame_tables(tables), types)
                return
            for part in make_frames(tables, chunks, types, infer):
                yield part
                yielded_rows += len(part)
            return
        except (LostConnectionError, UnreachableError) as error:
            if yielded_rows:
                raise DataError(
                    f"The connection to {display_name} broke after {yielded_rows:,} rows: {error}",
                    "Run it again, or read less at once, such as one day per run with a parameter.",
                ) from None
            if pause is None:
                raise DataError(
                    f"The connection to {display_name} broke {attempt} times: {error}",
                    "Try again later, or read less at once: chunks=50_000.",
                ) from None
            if attempt == 1 and isinstance(error, UnreachableError):
                raise
            time.sleep(pause)
