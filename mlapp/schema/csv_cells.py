"""Converts the cells of a CSV column to values of the field's type."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from typing import Any

from mlapp.schema.fields import Field

MISSING = frozenset(("", "NA", "N/A", "#N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "NaT"))
"""Cells that are missing values, except in a column of texts."""
TRUTH = {"true": True, "false": False}
NO_NUMBER = re.compile(r"[^0-9eE.+\n-]")
NO_DIGIT = re.compile(r"[^0-9+\n-]")
WHOLE_NUMBER = re.compile(r"(?:^|\n)[+-]?\d+(?:\n|$)")
LEADING_ZERO = re.compile(r"(?:^|\n)[+-]?0\d")
ZERO_FIRST = re.compile(r"[+-]?0\d+(\.\d*)?")
"""A number with leading zeros, such as a postal code, is a text."""
TEXT_STARTS = frozenset(string.ascii_letters) - frozenset("fFiInNtT")
"""First letters that neither a number, nor a boolean, nor a missing value has."""
Cells = Sequence["str | None"]


def convert_csv_cells(cells: Sequence[str | None], field: Field | None, width: int) -> Any:
    """A column's cells as values of its field's type. A cell that does not fit the type stays a text."""
    import numpy as np
    import pandas as pd

    if width == 1 and field is not None and field.nullable:
        cells = [cell or None for cell in cells]  # in a single column, writers quote missing values too
    if field is None or field.type == "any":
        dtype = _guess_cell_dtype(cells)
    else:
        dtype = {"integer": "int64", "number": "float64"}.get(field.type)
    numbers = convert_number_cells(cells, dtype)
    if numbers is not None:
        return numbers
    parse_cell = _choose_cell_reader(field)
    values: list[Any] = list(cells) if parse_cell is _keep_cell else [parse_cell(cell) for cell in cells]
    kinds = set(map(type, values))
    if kinds == {float}:
        return np.array(values, dtype="float64")
    if kinds == {int} and min(values) >= -(2**63) and max(values) < 2**63:
        return np.array(values, dtype="int64")
    if kinds == {bool}:
        return np.array(values)
    return pd.Series(values, dtype=object)


def _guess_cell_dtype(cells: Cells) -> str | None:
    """The dtype of cells of unknown type, if all look like integers or all like floats; otherwise None.

    Faster than `_parse_untyped_cell` for each cell, with the same result.
    """
    try:
        text = "\n".join(cells)  # type: ignore[arg-type]
    except TypeError:  # a missing cell
        return None
    if NO_NUMBER.search(text) or LEADING_ZERO.search(text):
        return None
    if not NO_DIGIT.search(text):
        return "int64"
    return None if WHOLE_NUMBER.search(text) else "float64"


def convert_number_cells(cells: Cells, dtype: str | None) -> Any:
    """Cells that are all integers of 64 bits, or all floats, as an array; otherwise None.

    Args:
        dtype: int64, float64, or None for neither.
    """
    import numpy as np

    if dtype is None:
        return None
    try:
        numbers = np.fromiter(map(float if dtype == "float64" else int, cells), dtype, len(cells))  # type: ignore[arg-type]
        has_underscore = "_" in "".join(cells)  # type: ignore[arg-type]  # Python allows it in numbers
    except (TypeError, ValueError, OverflowError):
        return None
    return None if has_underscore or np.isnan(numbers).any() else numbers


def _keep_cell(cell: str | None) -> str | None:
    return cell


def _choose_cell_reader(field: Field | None) -> Callable[[str | None], Any]:
    if field is None or field.type == "any":
        return _parse_untyped_cell
    if field.type in ("integer", "number"):
        return parse_number_cell if field.type == "integer" else _parse_float_cell
    if field.type == "boolean":
        return _parse_boolean_cell
    if field.type == "category" and not all(isinstance(value, str) for value in field.categories or ()):
        categories = {str(value): value for value in field.categories or ()}
        return lambda cell: (
            None if _is_missing_csv_cell(cell) else categories.get(cell or "", _parse_untyped_cell(cell))
        )
    if field.type in ("string", "category", "bytes"):  # `null` is base64, too
        return _keep_cell
    return lambda cell: None if _is_missing_csv_cell(cell) else cell


def _is_missing_csv_cell(cell: str | None) -> bool:
    return cell is None or cell.strip() in MISSING


def parse_number_cell(cell: str | None) -> Any:
    """An integer or a float; None for a missing value; the text itself if it is no number."""
    if cell is None or cell in MISSING:
        return None
    if "_" in cell or not cell.isascii():  # Python allows both in numbers
        return cell
    try:
        return int(cell)
    except ValueError:
        return _parse_float_cell(cell)


def _parse_float_cell(cell: str | None) -> Any:
    if cell is None or cell in MISSING:
        return None
    try:
        return float(cell) if "_" not in cell and cell.isascii() else cell
    except ValueError:
        return None if _is_missing_csv_cell(cell) else cell


def _parse_boolean_cell(cell: str | None) -> Any:
    return None if _is_missing_csv_cell(cell) else TRUTH.get(cell.strip().lower(), cell)  # type: ignore[union-attr]


def _parse_untyped_cell(cell: str | None) -> Any:
    """The value of a cell of unknown type: a number without leading zeros, a boolean, or a text."""
    if cell is None or cell[:1] in TEXT_STARTS:
        return cell
    if cell[:1] in "+-0" and ZERO_FIRST.fullmatch(cell):
        return cell
    value = TRUTH.get(cell.lower(), cell) if cell[:1] in "tTfF" else cell
    return parse_number_cell(cell) if value is cell and cell not in MISSING else value
