"""The body of a prediction request. A features file is sent unchanged, so that only the server interprets it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mlapp.errors import DataError, MissingExtraError, UsageError

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
SUFFIXES = (".csv", ".parquet", ".json", ".jsonl", ".ndjson", ".arrow", ".arrows", ".npy")


@dataclass(frozen=True)
class RequestBody:
    """The body of `POST /predict`, and its media type."""

    content: bytes
    media_type: str = JSON

    @classmethod
    def of(cls, inputs: Any) -> RequestBody:
        """A JSON body with these inputs: records, rows or columns of plain values. A `RequestBody` stays unchanged."""
        return inputs if isinstance(inputs, RequestBody) else cls(msgspec.json.encode({"inputs": inputs}))


def read_request_body(name: str) -> RequestBody:
    """The body that sends a features file, or JSON from standard input for `-`.

    CSV, JSON, Arrow and `.npy` are sent unchanged; JSON lines become one JSON document, Parquet an Arrow stream.

    Raises:
        UsageError: the file does not exist, or its format is not supported.
        DataError: it is empty, not JSON, or not Parquet.
    """
    if name == "-":
        return _format_request_body(sys.stdin.buffer.read(), "standard input")
    path = Path(name)
    if path.is_fifo():
        return _format_request_body(path.read_bytes(), name)
    if not path.is_file():
        raise UsageError(f"There is no features file '{name}'.", "Give the path of a file, or - for standard input.")
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"'{name}' has a format that cannot be sent.", f"Give one of {', '.join(SUFFIXES)}.")
    content = path.read_bytes()
    if not content.strip():
        raise DataError(f"'{name}' is empty.", "Give a file with at least one row.")
    return _make_file_request_body(path, name, content)


def _make_file_request_body(path: Path, name: str, content: bytes) -> RequestBody:
    """The body that sends a file with a suffix in `SUFFIXES`. `name` is the path in errors."""
    match path.suffix.lower():
        case ".csv":
            return RequestBody(content, "text/csv")
        case ".npy":
            return RequestBody(content, "application/x-npy")
        case ".arrow" | ".arrows":
            is_file = content.startswith(b"ARROW1")
            return RequestBody(content, "application/vnd.apache.arrow.file" if is_file else ARROW)
        case ".parquet":
            return RequestBody(_convert_parquet_request_body(path), ARROW)
        case ".json":
            return _format_request_body(content, name)
    return _join_json_lines(content, name)


def _join_json_lines(content: bytes, name: str) -> RequestBody:
    lines = [line.strip() for line in content.splitlines()]
    for number, line in enumerate(lines, start=1):
        if line:
            _check_json_request_body(line, f"{name}:{number}")
    return RequestBody(b'{"inputs":[' + b",".join(line for line in lines if line) + b"]}")


def _format_request_body(content: bytes, name: str) -> RequestBody:
    """The JSON text, with bare data under `inputs`. Numbers keep every digit."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    _check_json_request_body(content, name)
    try:
        keys = set(msgspec.json.decode(content, type=dict[str, msgspec.Raw]))
    except msgspec.ValidationError:
        keys = set()
    is_request = keys in ({"inputs"}, {"features"})
    return RequestBody(content if is_request else b'{"inputs":' + content + b"}")


def _check_json_request_body(content: bytes, name: str) -> None:
    if not content.strip():
        raise DataError(f"{name} is empty.", 'Give JSON, such as [{"name": value}].')
    try:
        msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DataError(f"{name} is not JSON: {error}", 'Give JSON, such as [{"name": value}].') from None


def _convert_parquet_request_body(path: Path) -> bytes:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("Reading Parquet", "parquet") from None
    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"'{path}' is not a Parquet file, or is truncated: {error}", "Write it again.") from None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
