"""Reads features from a file, a pipe or standard input."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlapp.errors import DataError, InputError, MissingExtraError, Problem, UsageError
from mlapp.schema import Schema
from mlapp.schema.csv import read_csv
from mlapp.schema.csv_lines import CsvError

SAMPLED = 1000
"""Number of values of a column that are inspected for their types."""
SUFFIXES = (".csv", ".csv.gz", ".parquet", ".json", ".jsonl", ".ndjson")


def read_features_file(name: str, schema: Schema, folder: Path = Path(), *, ignore_unknown: bool = False) -> Any:
    """Records, rows or a DataFrame from a file. `-` and pipes, such as `<(command)`, are JSON.

    Args:
        schema: of the features: the types of a CSV's cells.
        folder: where a relative name is looked up.
        ignore_unknown: as for `read_csv`.

    Raises:
        InputError: rows of a CSV have more or fewer cells than its header.
        UsageError: the file does not exist, or its format is not supported.
        DataError: it is empty, truncated, or not in the format of its suffix.
    """
    if name == "-":
        return _parse_json_features_file(sys.stdin.buffer.read(), "standard input")
    check_features_file(name, folder)
    path = folder / name
    if path.is_fifo():
        return _parse_json_features_file(path.read_bytes(), name)
    kind = path.name.lower().removesuffix(".gz")
    if kind.endswith(".csv"):
        return _read_csv_features_file(
            path, name, schema, is_packed=kind != path.name.lower(), ignore_unknown=ignore_unknown
        )
    match path.suffix.lower():
        case ".parquet":
            return _read_parquet_features_file(path, name)
        case ".json":
            return _parse_json_features_file(path.read_bytes(), name)
    lines = path.read_bytes().splitlines()
    return [
        _parse_json_features_file(line, f"{name}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def check_features_file(name: str, folder: Path = Path()) -> None:
    """Check that the file exists and has a supported format.

    Raises:
        UsageError: there is none. DataError: it is empty.
    """
    path = folder / name
    if name == "-" or path.is_fifo():
        return
    if not path.is_file():
        raise UsageError(f"There is no features file '{name}'.", "Give the path of a file, or - for standard input.")
    if not path.name.lower().endswith(SUFFIXES):
        raise UsageError(f"'{name}' has a format that cannot be read.", f"Give one of {', '.join(SUFFIXES)}.")
    if path.stat().st_size == 0:
        raise DataError(f"'{name}' is empty.", "Give a file with at least one row.")


def _read_csv_features_file(path: Path, name: str, schema: Schema, *, is_packed: bool, ignore_unknown: bool) -> Any:
    import gzip

    try:
        content = gzip.decompress(path.read_bytes()) if is_packed else path.read_bytes()
        return read_csv(content, schema, ignore_unknown=ignore_unknown)
    except (CsvError, EOFError, OSError) as error:
        raise DataError(f"'{name}' is not a CSV file: {error}.", "Save it as UTF-8 CSV.") from None
    except InputError as error:
        raise InputError(
            [replace(problem, detail=f"'{name}': {problem.detail}") for problem in error.problems], error.todo
        ) from None


def _read_parquet_features_file(path: Path, name: str) -> Any:
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except ImportError:
        raise MissingExtraError("Reading Parquet", "parquet") from None
    except Exception as error:  # pandas and pyarrow raise many types
        raise DataError(f"'{name}' is not a Parquet file, or is truncated: {error}", "Write it again.") from None
    for column in table.columns:
        kinds = set(map(type, table[column].head(SAMPLED))) if table[column].dtype == object else set()
        if dict in kinds:  # Parquet gives each record the keys of all
            raise InputError(
                [Problem(f"'{name}': column '{column}' contains records", field=str(column))],
                "Give the features as JSON.",
            )
        if any(kind.__name__ == "ndarray" for kind in kinds):
            lists = [value.tolist() if hasattr(value, "tolist") else value for value in table[column]]
            table[column] = pd.Series(lists, index=table.index, dtype=object)
    return table


def _parse_json_features_file(text: bytes, name: str) -> Any:
    import msgspec

    if not text.strip():
        raise DataError(f"{name} is empty.", 'Give JSON, such as [{"name": value}].')
    try:
        content = msgspec.json.decode(text.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, RecursionError) as error:
        raise DataError(f"{name} is not JSON: {error}", 'Give JSON, such as [{"name": value}].') from None
    return (
        next(iter(content.values()))
        if isinstance(content, dict) and set(content) in ({"inputs"}, {"features"})
        else content
    )
