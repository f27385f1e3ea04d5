"""Data between tasks: named parts in a folder, tables as Parquet, arrays as .npy. Pickle is opt-in.

dataset.json        the parts in order, each with its kind, and the identity of the original table
train.parquet       a pandas, polars or Arrow table
images.0.npy        an array, here the first of a pair
"""

from __future__ import annotations

import hashlib
import inspect
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mlapp.errors import DataError, UsageError
from mlapp.flyte.frame_format import FrameDetails, decode_frame, encode_frame
from mlapp.pipeline import Stage
from mlapp.pipeline.annotations import strip_annotated
from mlapp.pipeline.parameter_values import format_parameter_value_type

INDEX = "dataset.json"
OPT_IN = "Return a table or arrays, or opt in to pickle: `flyte: {pickle: true}` in mlapp.yaml."
KINDS = {
    ("pandas", "DataFrame"): "table",
    ("polars", "DataFrame"): "polars",
    ("pyarrow", "Table"): "arrow",
    ("numpy", "ndarray"): "array",
    ("builtins", "tuple"): "tuple",
    ("builtins", "list"): "list",
    ("builtins", "dict"): "dict",
}
"""By package and name of a type: the kind of its `Part`."""
PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One value: its kind, and its file (with table details that the file cannot hold) or its parts."""

    kind: str
    file: str | None = None
    parts: list[Part] = []
    names: list[str] = []
    frame: FrameDetails | None = None


class Identity(msgspec.Struct, frozen=True):
    """The identity of the loader's table: fingerprint, rows and columns."""

    fingerprint: str
    rows: int
    columns: int


class Dataset(msgspec.Struct, frozen=True):
    """The index of a folder. The first part is the training data."""

    identity: Identity
    names: list[str]
    parts: list[Part]


def write_folder_values(folder: Path, values: Mapping[str, Any], identity: Identity, *, pickle: bool = False) -> None:
    """Write named values into an empty folder.

    Args:
        pickle: allow values without their own format to be pickled.

    Raises:
        DataError: a value has no format; the message names it.
    """
    parts = []
    for number, (name, value) in enumerate(values.items()):
        stem = name if PLAIN_NAME.fullmatch(name) else f"part{number}"
        parts.append(_write_folder_value(folder, stem, value, name, pickle))
    index = Dataset(identity, list(values), parts)
    (folder / INDEX).write_bytes(msgspec.json.format(msgspec.json.encode(index)))


def read_folder_values(folder: Path) -> tuple[dict[str, Any], Identity]:
    """All values of a folder in order, and the identity."""
    index = open_folder_index(folder)
    return {
        name: _read_folder_file(folder, part) for name, part in zip(index.names, index.parts, strict=True)
    }, index.identity


def read_folder_value(folder: Path, name: str) -> Any:
    """One value of a folder."""
    index = open_folder_index(folder)
    return _read_folder_file(folder, index.parts[index.names.index(name)])


def open_folder_index(folder: Path) -> Dataset:
    """The index of a folder."""
    return msgspec.json.decode((folder / INDEX).read_bytes(), type=Dataset)


def check_folder_annotation(stage: Stage) -> None:
    """Check the type in a stage's return annotation, if it has one.

    Raises:
        UsageError: the type has no format for transfer; the message names the function and the type.
    """
    kind = _find_unformatted_data_type(stage.signature.return_annotation)
    if kind is not None:
        raise UsageError(
            f"{stage.title} returns a {format_parameter_value_type(kind)}, which Flyte cannot pass between tasks.",
            OPT_IN,
        )


def hash_folder(folder: Path) -> str:
    """SHA-256 of names and contents. Folders with the same data have the same hash, whichever run wrote them."""
    hasher = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        hasher.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            while chunk := content.read(1 << 20):
                hasher.update(chunk)
    return hasher.hexdigest()


def _find_unformatted_data_type(annotation: Any) -> Any:
    """The type in an annotation that has no transfer format; None if there is none or it is unknown."""
    annotation = strip_annotated(annotation)
    if typing.get_origin(annotation) is not None:
        return next(
            (kind for inner in typing.get_args(annotation) if (kind := _find_unformatted_data_type(inner)) is not None),
            None,
        )
    is_plain = annotation in (str, int, float, bool, bytes, type(None), object, inspect.Signature.empty)
    if not isinstance(annotation, type) or is_plain or annotation.__module__ in ("typing", "collections.abc"):
        return None
    return None if _find_folder_type_kind(annotation) else annotation


def _write_folder_value(folder: Path, stem: str, value: Any, name: str, pickle: bool) -> Part:
    kind = _find_folder_type_kind(type(value))
    if kind == "table":
        value, details = encode_frame(value, name)
        return Part(kind, _write_folder_table(folder, f"{stem}.parquet", value, kind, name), frame=details)
    if kind in ("polars", "arrow"):
        return Part(kind, _write_folder_table(folder, f"{stem}.parquet", value, kind, name))
    if kind == "array" and value.dtype.kind != "O":
        import numpy as np

        np.save(folder / f"{stem}.npy", value, allow_pickle=False)
        return Part(kind, f"{stem}.npy")
    if kind in ("tuple", "list", "dict"):
        text = _encode_exact_folder_json(value)
        if kind != "tuple" and text is not None:
            (folder / f"{stem}.json").write_bytes(text)
            return Part("json", f"{stem}.json")
        items = list(value.values()) if kind == "dict" else list(value)
        if len(items) <= 16 and all(_find_folder_type_kind(type(item)) for item in items):
            parts = [
                _write_folder_value(folder, f"{stem}.{number}", item, f"{name}[{number}]", pickle)
                for number, item in enumerate(items)
            ]
            return Part(kind, None, parts, list(map(str, value)) if kind == "dict" else [])
    elif value is None or isinstance(value, (str, int, float)):
        (folder / f"{stem}.json").write_bytes(msgspec.json.encode(value))
        return Part("json", f"{stem}.json")
    return Part("pickle", _write_folder_pickle(folder, f"{stem}.pkl", value, name, pickle))


def _read_folder_file(folder: Path, part: Part) -> Any:
    file = folder / (part.file or "")
    if part.kind in ("table", "polars", "arrow"):
        import pyarrow.parquet as pq

        table = pq.read_table(file)
        if part.kind == "table":
            return table.to_pandas() if part.frame is None else decode_frame(table.to_pandas(), part.frame)
        if part.kind == "arrow":
            return table
        import polars

        return polars.from_arrow(table)
    if part.kind == "array":
        import numpy as np

        return np.load(file, allow_pickle=False)
    if part.kind == "json":
        return msgspec.json.decode(file.read_bytes())
    if part.kind == "pickle":
        import cloudpickle

        return cloudpickle.loads(file.read_bytes())
    values = [_read_folder_file(folder, inner) for inner in part.parts]
    if part.kind == "dict":
        return dict(zip(part.names, values, strict=True))
    return tuple(values) if part.kind == "tuple" else values


def _find_folder_type_kind(kind: type) -> str | None:
    return KINDS.get((kind.__module__.partition(".")[0], kind.__name__))


def _write_folder_table(folder: Path, file: str, value: Any, kind: str, name: str) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pa.Table.from_pandas(value) if kind == "table" else value.to_arrow() if kind == "polars" else value
        pq.write_table(table, folder / file, compression="zstd")
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DataError(
            f"'{name}' cannot be written as Parquet: {' '.join(map(str, error.args))}.",
            "Give that column one type in the data_reader, for example with .astype(str).",
        ) from None
    return file


def _encode_exact_folder_json(value: Any) -> bytes | None:
    """The value as JSON, if JSON restores it without loss."""
    try:
        text = msgspec.json.encode(value)
        return text if msgspec.json.decode(text) == value else None
    except (TypeError, ValueError, msgspec.MsgspecError):
        return None


def _write_folder_pickle(folder: Path, file: str, value: Any, name: str, allowed: bool) -> str:
    if not allowed:
        raise DataError(
            f"'{name}' is a {type(value).__module__}.{type(value).__qualname__}, "
            "which has no format for the transfer between tasks.",
            OPT_IN,
        )
    import cloudpickle

    (folder / file).write_bytes(cloudpickle.dumps(value))
    return file
