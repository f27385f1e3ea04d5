"""Checks the column names of a table or of records. One error names all missing, unknown and duplicate columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from mlapp.errors import InputError, Problem, list_names, suggest_nearest
from mlapp.schema.fields import Schema

MAX_REPORTED = 10
"""Maximum problems of a kind that an error names."""


def check_column_names(column_names: Sequence[str], schema: Schema, *, ignore_unknown: bool = False) -> None:
    """Check that a table, or a table for an array model, has the schema's columns in any order.

    It may also have training's unused columns.

    Args:
        ignore_unknown: accept unknown columns.

    Raises:
        InputError: names the missing, unknown or duplicate ones; the first few of many.
    """
    names = schema.columns if schema.kind == "array" else schema.names
    used, counts = set(names), Counter(column_names)
    allowed = used | set(schema.unused)
    problems = [Problem(f"column '{name}' is missing", field=name) for name in names if name not in counts]
    unknown = islice((name for name in counts if name not in allowed and not ignore_unknown), MAX_REPORTED)
    problems += [Problem(_add_suggestion(f"column '{name}' is unknown", name, names), field=name) for name in unknown]
    twice = islice((name for name in sorted(counts) if counts[name] > 1 and name in used), MAX_REPORTED)
    problems += [Problem(f"column '{name}' appears twice", field=name) for name in twice]
    _refuse_column_problems(problems, names, "; or rows without names" if schema.kind == "array" else "")


def check_record_columns(
    records: Sequence[Mapping[str, Any]], schema: Schema, first_row: int, *, ignore_unknown: bool = False
) -> None:
    """Check that each record has the schema's columns, and otherwise only training's unused columns.

    Args:
        first_row: the number of the first row.
        ignore_unknown: accept unknown columns.

    Raises:
        InputError: names the missing and unknown ones with their rows; the first few of many.
    """
    names = schema.names
    expected, allowed = set(names), {*names, *schema.unused}
    problems = []
    for row, record in enumerate(records, first_row):
        if record.keys() == expected:
            continue
        problems += [Problem(f"row {row} lacks '{name}'", field=name, row=row) for name in names if name not in record]
        problems += [
            Problem(
                _add_suggestion(f"row {row} has an unknown column '{name}'", str(name), names), field=str(name), row=row
            )
            for name in islice((name for name in record if name not in allowed and not ignore_unknown), MAX_REPORTED)
        ]
        if len(problems) >= MAX_REPORTED:
            break
    _refuse_column_problems(problems, names)


def _add_suggestion(detail: str, name: str, names: Sequence[str]) -> str:
    suggestion = suggest_nearest(name, names)
    return f"{detail}{suggestion and '.'}{suggestion}"


def _refuse_column_problems(problems: list[Problem], names: list[str], alternative: str = "") -> None:
    if problems:
        raise InputError(problems, f"Send these columns: {list_names(names)}{alternative}.")
