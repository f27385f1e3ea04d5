"""Reads CSV with the types of a schema: `text/csv` bodies and files of features.

The schema decides what a cell means: `01234` and `NA` are texts in a column of texts. There, only an empty cell without
quotes is missing; `""` is the empty text, as `mlapp data export` writes it. In other columns, `NA`, `NaN`, `null` and
similar words are missing values too. A cell that does not fit its column stays a text; `conform_table` refuses it and
names its row.
"""

from __future__ import annotations

import codecs
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlapp.errors import InputError, Problem
from mlapp.schema.column_check import check_column_names
from mlapp.schema.csv_cells import Cells, convert_csv_cells, convert_number_cells, parse_number_cell
from mlapp.schema.csv_lines import MAX_REPORTED, CsvError, detect_line_delimiter, open_csv_rows
from mlapp.schema.fields import Schema

if TYPE_CHECKING:
    import pandas as pd

EMPTY = ""
"""An empty cell in quotes. An empty cell without quotes is None."""


def read_csv(content: bytes, schema: Schema, *, ignore_unknown: bool = False) -> pd.DataFrame | list[Any]:
    """The rows of a CSV: a table with the columns that its header names, or those of the schema in their order.

    The first line is a header if one of its cells is a column's name, in any letter case, or if its number of cells
    differs from the schema's number of columns. For a schema of arrays, the rows are lists of numbers.

    Args:
        ignore_unknown: for a schema of arrays, leave out unknown columns instead of refusing them. A table keeps them.

    Raises:
        CsvError: not UTF-8 (or UTF-16 with a mark), or a quote that does not end.
        InputError: a row has more or fewer cells than the header; a column is duplicated; there are no rows.
    """
    rows, _ = next(read_csv_in_pieces(content, schema, ignore_unknown=ignore_unknown))
    return rows


def read_csv_in_pieces(
    content: bytes,
    schema: Schema,
    *,
    max_columns: int = sys.maxsize,
    cells: int = sys.maxsize,
    ignore_unknown: bool = False,
) -> Iterator[tuple[pd.DataFrame | list[Any], int]]:
    """The rows of a CSV in pieces, each as `read_csv` returns them, with the number of its cells.

    Args:
        max_columns: maximum number of columns.
        cells: approximate number of cells of a piece.
        ignore_unknown: as for `read_csv`.

    Raises:
        CsvError, InputError: as for `read_csv`; CsvError, more than `max_columns` columns.
    """
    text = _decode_csv_text(content)
    delimiter = detect_line_delimiter(text.partition("\n")[0], len(schema.fields))
    lines = open_csv_rows(text, delimiter)
    first_line = lines.take_first()
    if first_line is None:
        raise InputError([Problem("the CSV is empty")], "Send a header line, and a line for each row.")
    if len(first_line) > max_columns:
        raise CsvError(f"it has {len(first_line)} columns; the model takes {len(schema.names)}")
    names = schema.names
    column_names = {*names, *schema.unused}
    header = [EMPTY if cell is None else cell if cell in column_names else cell.strip() for cell in first_line]
    has_header = _is_csv_header(header, schema)
    if not has_header:
        lines.restart()
    width = len(header) if has_header else len(names) or len(header)
    columns = header if has_header else names
    _refuse_untyped_csv_columns(columns, schema)
    if schema.kind != "array":
        _refuse_duplicate_csv_columns(columns, names)
    order = None
    if schema.kind == "array" and has_header and schema.columns:
        check_column_names(header, schema, ignore_unknown=ignore_unknown)
        order = [header.index(name) for name in schema.columns]
    rows_before, rows_per_piece = 0, max(cells // max(width, 1), 1)
    while True:
        body, rows = lines.take_columns(width, rows_per_piece, rows_before)
        if rows_before and not rows:
            return
        if not rows:
            raise InputError([Problem("the CSV has a header and no rows")], "Send a line for each row.")
        if order is not None:
            body = [body[at] for at in order]
        yield _make_csv_table(body, columns, schema), rows * width
        rows_before += rows


def _make_csv_table(body: list[Cells], header: Sequence[str], schema: Schema) -> pd.DataFrame | list[Any]:
    if schema.kind == "array":
        arrays = [convert_number_cells(cells, "int64") for cells in body]
        columns = [
            [parse_number_cell(cell) for cell in cells] if array is None else array.tolist()
            for cells, array in zip(body, arrays, strict=True)
        ]
        return [list(row) for row in zip(*columns, strict=True)]
    import pandas as pd

    fields = {field.name: field for field in schema.fields}
    table = {
        name: convert_csv_cells(cells, fields.get(name), len(header)) for name, cells in zip(header, body, strict=True)
    }
    return pd.DataFrame(table)


def _decode_csv_text(content: bytes) -> str:
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise CsvError(f"it is not {encoding[:6].rstrip('-').upper()}: {error.reason} at byte {error.start}") from None


def _is_csv_header(header: list[str], schema: Schema) -> bool:
    if schema.kind == "array":
        return any(parse_number_cell(cell) is cell for cell in header if cell)
    column_names = {name.strip().casefold() for name in (*schema.names, *schema.unused)}
    return len(header) != len(schema.fields) or any(cell.casefold() in column_names for cell in header)


def _refuse_duplicate_csv_columns(header: Sequence[str], names: Sequence[str]) -> None:
    counts = Counter(header)
    duplicates = [name for name in names if counts[name] > 1]
    if duplicates:
        raise InputError([Problem(f"column '{name}' appears twice", field=name) for name in duplicates[:MAX_REPORTED]])


def _refuse_untyped_csv_columns(header: Sequence[str], schema: Schema) -> None:
    """Refuse columns of lists, records, or values of several types: CSV would make texts of all of them."""
    untyped = {field.name for field in schema.fields if field.type == "any" and field.example is not None}
    if untyped_names := [name for name in header if name in untyped]:
        details = [
            f"column '{name}' has values of several types, lists or records" for name in untyped_names[:MAX_REPORTED]
        ]
        problems = [Problem(detail, field=name) for detail, name in zip(details, untyped_names, strict=False)]
        raise InputError(problems, "CSV cannot distinguish them: send JSON.")
