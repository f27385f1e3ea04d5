"""The forms that a prediction request's body may have, by its content-type."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlapp.errors import InputError, Problem
from mlapp.prediction import UNKNOWN
from mlapp.schema.csv import CsvError, read_csv
from mlapp.schema.rows import Part
from mlapp.serving.decoding import arrow as ipc
from mlapp.serving.decoding import large_json
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.inference.served_model import ServedModel
from mlapp.serving.web.problems import HttpError

WIDEST = 10_000
"""Most columns of a CSV, unless the model takes more: a million columns cost more than as many rows."""
KNOWN = "application/json, text/csv, application/vnd.apache.arrow.stream or application/x-npy"


async def decode_body(endpoint: Endpoint, loaded: ServedModel, media: bytes, body: bytes) -> Part:
    """The features in a body.

    Raises:
        HttpError: 400, it cannot be read; 413, it unpacks to too much; 415, a type that is not known.
        InputError: it does not fit the schema.
    """
    limit = endpoint.settings.max_body
    return await endpoint.decode_body(lambda: _decode_media(loaded, media, body, limit), len(body))


def is_json_type(media: bytes) -> bool:
    """Whether a body of that type, or of none, is JSON."""
    return not media or media == b"application/json" or media.endswith(b"+json")


def _decode_media(loaded: ServedModel, media: bytes, body: bytes, limit: int) -> Part:
    codec = loaded.codec
    if is_json_type(media):
        return large_json.decode_large(codec, body) or codec.decode_json(body)
    if media == b"text/csv":
        return codec.accept_inputs(decode_csv(body, loaded))
    if media in (b"application/vnd.apache.arrow.stream", b"application/vnd.apache.arrow.file"):
        return codec.accept_inputs(decode_arrow(body, limit))
    if media == b"application/x-npy":
        array = decode_npy(body)
        _require_raw_array(loaded, array)
        return codec.accept_inputs(array)
    if media == b"application/x-www-form-urlencoded":
        raise HttpError(
            415, "The body says it is a form, as curl does by itself. Add -H 'Content-Type: application/json'."
        )
    raise HttpError(415, f"content-type {media.decode('latin-1')!r} is not accepted here. Send {KNOWN}.")


def decode_csv(body: bytes, loaded: ServedModel) -> Any:
    """A CSV, read into the schema's types. Without a line of names its columns are in training order.

    Raises:
        HttpError: 400, not CSV. InputError: rows of different lengths, a column that is there twice.
    """
    predictor = loaded.predictor
    names = predictor.schema.features.names
    width = body.count(b",", 0, body.find(b"\n") + 1 or len(body)) + 1
    if width > max(WIDEST, 2 * len(names)):
        raise HttpError(400, f"The CSV has {width} columns; the model takes {len(names)}.")
    has_loader = predictor.pipeline.stage("feature_loader") is not None
    try:
        return read_csv(body, UNKNOWN if has_loader else predictor.schema.features)
    except CsvError as error:
        raise HttpError(400, f"The body is not CSV: {error}.") from None


def decode_arrow(body: bytes, limit: int) -> Any:
    """An Arrow IPC stream or file, of at most `limit` bytes without compression.

    Raises:
        HttpError: 400, not Arrow; 413, too large; 415, pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise HttpError(415, "This server reads no Arrow: it has no pyarrow. Send JSON.") from None
    with _translate_read_error(
        "Arrow IPC"
    ):  # pandas' own types are named in the body's metadata: a wrong one may raise anything
        return ipc.read_arrow_table(body, limit)


def decode_npy(body: bytes) -> Any:
    """One array in NumPy's own format, of numbers only: nothing in it is run.

    Raises:
        HttpError: 400, not such an array. InputError: a single number.
    """
    import numpy as np

    with _translate_read_error(
        "an .npy array of numbers"
    ):  # the header is read as Python source, and a zip file is opened
        array = np.load(io.BytesIO(body), allow_pickle=False)
    # Without bytes it may claim any number of rows.
    if not isinstance(array, np.ndarray) or not array.ndim or not array.nbytes:
        raise InputError([Problem("the body is not an array with a row for each prediction")])
    return array


def _require_raw_array(loaded: ServedModel, array: Any) -> None:
    """Check an array against the example of what the app's feature_loader reads.

    Raises:
        InputError: the example holds no numbers, or rows of another shape.
    """
    import numpy as np

    inputs = loaded.predictor.schema.inputs
    if inputs is None:
        return
    try:
        example = np.asarray(inputs.example)
    except ValueError:  # lists of different lengths
        example = np.asarray(None)
    if example.dtype.kind not in "biuf":
        raise InputError(
            [Problem("the inputs of this app are no array of numbers")], "Send JSON; /docs has an example."
        )
    if example.shape[1:] != array.shape[1:]:
        raise InputError(
            [Problem(f"the array has rows of shape {array.shape[1:]}; the app reads rows of {example.shape[1:]}")],
            "Send an array of such rows.",
        )


@contextmanager
def _translate_read_error(form: str) -> Iterator[None]:
    """Whatever a library's reader raises in this block tells that the body is not of that form."""
    try:
        yield
    except HttpError:
        raise
    except Exception as error:
        raise HttpError(400, f"The body is not {form}: {error}") from None
