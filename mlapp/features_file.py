"""Features from a file, a pipe or standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mlapp.errors import DataError, MissingExtraError, UsageError

SUFFIXES = (".csv", ".parquet", ".json", ".jsonl", ".ndjson")


def read_features_file(name: str) -> Any:
    """Records, rows or a DataFrame from a file; JSON from standard input for `-`, and from a pipe, as `<(command)` is.

    Raises:
        UsageError: there is no such file, or it is of a kind that is not read.
        DataError: it is empty, cut off or not what its suffix says.
    """
    if name == "-":
        return _json(sys.stdin.buffer.read(), "standard input")
    path = Path(name)
    if path.is_fifo():
        return _json(path.read_bytes(), name)
    if not path.is_file():
        raise UsageError(f"There is no features file '{name}'.", "Give the path of a file, or - for standard input.")
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"'{name}' is of a kind that is not read.", f"Give one of {', '.join(SUFFIXES)}.")
    if path.stat().st_size == 0:
        raise DataError(f"'{name}' is empty.", "Give a file with at least one row.")
    match path.suffix.lower():
        case ".csv":
            return _csv(path)
        case ".parquet":
            return _parquet(path)
        case ".json":
            return _json(path.read_bytes(), name)
    lines = path.read_bytes().splitlines()
    return [_json(line, f"{name}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _csv(path: Path) -> Any:
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is not a CSV file: {error}", "Mend it, or save it as UTF-8 CSV.") from None
    if table.empty:
        raise DataError(f"'{path}' has a header and no rows.", "Give a file with at least one row.")
    return table


def _parquet(path: Path) -> Any:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except ImportError:
        raise MissingExtraError("Reading Parquet", "parquet") from None
    except Exception as error:
        raise DataError(f"'{path}' is not a Parquet file, or is cut off: {error}", "Write it again.") from None


def _json(text: bytes, name: str) -> Any:
    import msgspec

    if not text.strip():
        raise DataError(f"{name} is empty.", 'Give JSON, as [{"name": value}].')
    try:
        found = msgspec.json.decode(text.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, RecursionError) as error:
        raise DataError(f"{name} is not JSON: {error}", 'Give JSON, as [{"name": value}].') from None
    return found["inputs"] if isinstance(found, dict) and set(found) == {"inputs"} else found
