"""Writes a table to a CSV or Parquet file, part by part. The file appears only when it is complete."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from mlapp.errors import DataError, MissingExtraError, UsageError

if TYPE_CHECKING:
    import pandas as pd


EMPTY_TEXT = "\ue000empty\ue001"
"""Placeholder for empty texts while rows are written as CSV: private-use characters, which data does not contain."""


class Writer(Protocol):
    """Receives the parts of a table in order."""

    def __call__(self, part: pd.DataFrame) -> None: ...


def export_table(data: pd.DataFrame | Iterable[pd.DataFrame], path: str | os.PathLike[str]) -> int:
    """Write a table, or the parts of one as they arrive, to a `.csv`, `.csv.gz` or `.parquet` file.

    The rows are written to a temporary file, which is renamed at the end: until then, readers of `path` see the old
    file, and an error leaves nothing behind.

    Returns:
        The number of rows.

    Raises:
        UsageError: the suffix is not supported. DataError: the file cannot be written, the disk is full, or a part has
            columns that the first part lacks. MissingExtraError: Parquet without pyarrow.
    """
    import pandas as pd

    file = Path(path)
    open_writer = _choose_export_writer(file)
    parts = [data] if isinstance(data, pd.DataFrame) else data
    rows = 0
    with replace_exported_file(file) as unfinished, open_writer(unfinished) as write:
        for part in parts:
            write(part)
            rows += len(part)
    return rows


def _choose_export_writer(file: Path) -> Any:
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes[-1:] == [".parquet"]:
        return _open_parquet_export
    if suffixes[-1:] == [".csv"] or suffixes[-2:] == [".csv", ".gz"]:
        return _open_csv_export
    raise UsageError(f"{file} is neither CSV nor Parquet.", "Name it .csv, .csv.gz or .parquet.")


@contextmanager
def _open_csv_export(file: Path) -> Iterator[Writer]:
    import gzip
    import io

    columns: list[str] = []
    with file.open("wb") as raw, contextlib.ExitStack() as stack:
        target: Any = stack.enter_context(gzip.open(raw, "wb")) if file.suffix == ".gz" else raw
        text = stack.enter_context(io.TextIOWrapper(target, encoding="utf-8", newline=""))

        def write_csv_part(part: pd.DataFrame) -> None:
            _refuse_changed_export_columns(part, columns)
            _write_csv_export(part, text, header=not columns)
            columns[:] = map(str, part.columns)

        yield write_csv_part


def _write_csv_export(part: pd.DataFrame, text: TextIO, *, header: bool) -> None:
    """Write rows. Empty texts are quoted to distinguish them from missing values, and bytes are written as base64."""
    import io

    part = _encode_exported_bytes(part)
    texts = [at for at in range(part.shape[1]) if part.dtypes.iloc[at].kind in "OU"]
    if not any((part.iloc[:, at] == "").any() for at in texts):
        part.to_csv(text, index=False, header=header)
        return
    marked = part.copy(deep=False)
    for at in texts:
        column = part.iloc[:, at].astype(object)
        marked.isetitem(at, column.where(column != "", EMPTY_TEXT).array)
    rows = io.StringIO()
    marked.to_csv(rows, index=False, header=header)
    text.write(rows.getvalue().replace(EMPTY_TEXT, '""'))


def _encode_exported_bytes(part: pd.DataFrame) -> pd.DataFrame:
    """The table with bytes replaced by the texts that represent them in requests."""
    from mlapp.schema.text_forms import write_text_form

    objects = [at for at in range(part.shape[1]) if part.dtypes.iloc[at].kind == "O"]
    encoded = part
    for at in objects:
        column = part.iloc[:, at].astype(object)
        if any(isinstance(value, bytes) for value in column):
            encoded = encoded.copy(deep=False) if encoded is part else encoded
            encoded.isetitem(at, [write_text_form(value) if isinstance(value, bytes) else value for value in column])
    return encoded


@contextmanager
def _open_parquet_export(file: Path) -> Iterator[Writer]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("Writing Parquet", "parquet") from None
    with contextlib.ExitStack() as stack:
        writers: list[Any] = []

        def write_parquet_part(part: pd.DataFrame) -> None:
            if not writers:
                try:
                    table = pa.Table.from_pandas(part, preserve_index=False)
                    writers.append(stack.enter_context(parquet.ParquetWriter(file, table.schema, compression="zstd")))
                except (pa.ArrowException, TypeError) as error:
                    raise _unexportable_column_error(error) from None
            else:
                _refuse_changed_export_columns(part, writers[0].schema.names)
                try:
                    table = pa.Table.from_pandas(part, preserve_index=False).cast(writers[0].schema)
                except (pa.ArrowException, ValueError) as error:
                    raise DataError(
                        f"A later part of the data has different types: {error}",
                        "Set the types with types= in the reader, or export a CSV.",
                    ) from None
            try:
                writers[0].write_table(table)
            except (pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
                raise _unexportable_column_error(error) from None

        yield write_parquet_part


def _unexportable_column_error(error: Exception) -> DataError:
    return DataError(
        f"A column of the data cannot be stored as Parquet: {str(error).rstrip('.')}.",
        "Export a CSV, or change the column's type.",
    )


def _refuse_changed_export_columns(part: pd.DataFrame, columns: list[str]) -> None:
    if columns and list(map(str, part.columns)) != list(columns):
        raise DataError(
            f"A later part of the data has other columns: {', '.join(map(str, part.columns))}.",
            f"The first part has {', '.join(columns)}: give every part the same columns.",
        )


@contextmanager
def replace_exported_file(file: Path) -> Iterator[Path]:
    """A temporary file in the same folder, which replaces `file` on success and is deleted on failure.

    Raises:
        DataError: it cannot be written: immediately if the folder is missing or not writable, later if the disk is
            full.
    """
    unfinished: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", suffix="".join(file.suffixes), dir=file.parent)
        os.close(handle)
        unfinished = Path(name)
        yield unfinished
        with unfinished.open("rb+") as stream:
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        unfinished.chmod(0o666 & ~mask)  # temporary files are private to their owner
        unfinished.replace(file)
        unfinished = None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"{file} cannot be written: the disk is full.",
                "Free disk space, or export to another place. No file was written.",
            ) from None
        if not _is_data_export_error(error, file, unfinished):
            raise
        raise DataError(f"{file} cannot be written: {error.strerror or error}.", "Choose another place.") from None
    finally:
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)


def _is_data_export_error(error: OSError, file: Path, unfinished: Path | None) -> bool:
    """Whether an error concerns the written file; the reader reports its own errors."""
    error_file = str(error.filename or "")
    return unfinished is None or error_file in ("", str(unfinished), str(file))
