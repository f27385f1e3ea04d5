"""Decodes the body of a prediction request by its content-type."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mlapp.errors import InputError, Problem
from mlapp.prediction import UNKNOWN
from mlapp.schema.csv import read_csv_in_pieces
from mlapp.schema.csv_lines import CsvError
from mlapp.schema.part import Part
from mlapp.serving.decoding import arrow as ipc
from mlapp.serving.decoding import large_json
from mlapp.serving.decoding.codec import Codec, count_json_objects
from mlapp.serving.web.budget import CELLS_PER_OBJECT, Budget, CancelledBudgetError
from mlapp.serving.web.problems import HttpError

CHUNK = 100_000
"""Number of CSV cells that are converted to features together."""
ACCEPTED_TYPES = "application/json, text/csv, application/vnd.apache.arrow.stream or application/x-npy"


def is_json_type(media: bytes) -> bool:
    """Whether a body of this type, or without a type, is JSON."""
    return not media or media == b"application/json" or media.endswith(b"+json")


def decode_body(codec: Codec, body: bytes, budget: Budget, media: bytes, limit: int) -> Part:
    """The features in a body of the type `media`, of at most `limit` bytes without compression.

    Raises:
        HttpError: 400, it cannot be read; 413, it is too large unpacked; 415, an unknown type.
        InputError: it does not fit the schema.
    """
    if is_json_type(media):
        return large_json.decode_large_json(codec, body, budget) or codec.decode_json(body)
    if media == b"text/csv":
        return decode_csv_body(body, codec, budget)
    if media in (b"application/vnd.apache.arrow.stream", b"application/vnd.apache.arrow.file"):
        return codec.accept_inputs(decode_arrow_body(body, limit, codec, budget))
    if media == b"application/x-npy":
        array = decode_npy_body(body, budget)
        _require_raw_media_array(codec, array)
        return codec.accept_inputs(array)
    if media == b"application/x-www-form-urlencoded":
        raise HttpError(
            415, "The body is declared as a form, which is curl's default. Add -H 'Content-Type: application/json'."
        )
    raise HttpError(415, f"content-type {media.decode('latin-1')!r} is not accepted here. Send {ACCEPTED_TYPES}.")


def decode_csv_body(body: bytes, codec: Codec, budget: Budget) -> Part:
    """The features in a CSV, decoded in chunks.

    Raises:
        HttpError: 400, not CSV, or too many columns; 413, too many cells. InputError: rows of different lengths, a
            duplicate column, a row that does not fit the schema.
    """
    pieces = read_csv_in_pieces(
        body,
        UNKNOWN if codec.has_loader else codec.predictor.schema.features,
        max_columns=codec.max_columns,
        cells=CHUNK if codec.is_by_row or codec.is_raw else len(body) + 1,
        ignore_unknown=codec.predictor.ignores_extra,
    )
    try:
        if codec.is_raw:
            return codec.accept_inputs(_join_raw_media_pieces(pieces, budget))
        parts = codec.create_collector(codec)
        for table, cells in pieces:
            budget.take(cells)
            parts.add(codec.accept_inputs(table, parts.rows))
        return parts.join()
    except CsvError as error:
        raise HttpError(400, f"The body is not CSV: {error!s:.300}.") from None


def _join_raw_media_pieces(pieces: Iterable[tuple[Any, int]], budget: Budget) -> Any:
    """The table or list that a CSV makes if it is read at once.

    Raises:
        HttpError: 413, too many cells, or too many texts.
    """
    tables: list[Any] = []
    objects = 0
    for piece, cells in pieces:
        budget.take(cells)
        objects = count_json_objects(piece, objects)
        tables.append(piece)
    if len(tables) == 1:
        return tables[0]
    if isinstance(tables[0], list):
        return list(itertools.chain.from_iterable(tables))
    import pandas as pd

    return pd.DataFrame({name: _join_media_values([table[name] for table in tables]) for name in tables[0].columns})


def _join_media_values(parts: Sequence[Any]) -> Any:
    """The values of one column: an array if all parts have the same dtype, objects of their own types otherwise."""
    import numpy as np
    import pandas as pd

    dtypes = {part.dtype for part in parts}
    if len(dtypes) == 1 and dtypes != {np.dtype("object")}:
        return np.concatenate(parts)
    return pd.Series(list(itertools.chain.from_iterable(part.tolist() for part in parts)), dtype=object)


def check_body_width(columns: int, codec: Codec) -> None:
    """Check that a body does not have far more columns than the model takes.

    Raises:
        HttpError: 400, too many columns.
    """
    if columns > codec.max_columns:
        names = codec.predictor.schema.features.names
        raise HttpError(400, f"The body has {columns} columns; the model takes {len(names)}.")


def decode_arrow_body(body: bytes, limit: int, codec: Codec, budget: Budget) -> Any:
    """An Arrow IPC stream or file, of at most `limit` bytes without compression.

    Raises:
        HttpError: 400, not Arrow; 413, too large; 415, pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise HttpError(415, "This server cannot read Arrow, because pyarrow is not installed. Send JSON.") from None
    with _translate_media_error("Arrow IPC"):  # the body's metadata names pandas' types: a wrong one can raise anything
        return ipc.read_arrow_table(body, limit, budget, lambda columns: check_body_width(columns, codec))


def decode_npy_body(body: bytes, budget: Budget) -> Any:
    """An array of numbers in NumPy's format. A pickle in it is refused, because it can run code.

    Raises:
        HttpError: 400, not such an array. InputError: a single number.
    """
    import numpy as np

    with _translate_media_error(
        "an .npy array of numbers"
    ):  # NumPy parses the header as Python source, and opens zip files
        budget.take()
        array = np.load(io.BytesIO(body), allow_pickle=False)
    # An array without bytes can claim any number of rows.
    if not isinstance(array, np.ndarray) or not array.ndim or not array.nbytes:
        raise InputError([Problem("the body is not an array with a row for each prediction")])
    budget.take(array.size if array.dtype.kind in "biuf" else CELLS_PER_OBJECT * array.size)
    return array


def _require_raw_media_array(codec: Codec, array: Any) -> None:
    """Check an array against the example input of the app's feature_loader.

    Raises:
        InputError: the example has no numbers, or rows of another shape.
    """
    import numpy as np

    inputs = codec.predictor.schema.inputs
    if inputs is None:
        return
    try:
        example = np.asarray(inputs.example)
    except ValueError:  # lists of different lengths
        example = np.asarray(None)
    if example.dtype.kind not in "biuf":
        raise InputError(
            [Problem("the inputs of this app are not an array of numbers")], "Send JSON; /docs has an example."
        )
    if example.shape[1:] != array.shape[1:]:
        raise InputError(
            [Problem(f"the array has rows of shape {array.shape[1:]}; the app reads rows of {example.shape[1:]}")],
            "Send an array of such rows.",
        )


@contextmanager
def _translate_media_error(form: str) -> Iterator[None]:
    """Convert any error of a library's reader in this block to a 400, or to a 413 if it is out of memory."""
    try:
        yield
    except (HttpError, InputError, CancelledBudgetError):
        raise
    except MemoryError:
        raise HttpError(413, "The body needs too much memory.") from None
    except Exception as error:  # the readers document no complete list of what a damaged body raises
        raise HttpError(400, f"The body is not {form}: {error!s:.300}") from None
