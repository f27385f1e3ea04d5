"""CSV with the types of a schema: the one reader of `text/csv` bodies and of files of features.

Cells mean what the schema says: `01234` and `NA` are texts in a column of texts. Only an empty cell without quotes is
missing there; `""` is the empty text, as `mlapp data export` writes it. Numbers and dates may also be missing as `NA`,
`NaN`, `null` and the like. What a cell cannot mean stays a text, and is refused with its row by `conform`.
"""

from __future__ import annotations

import codecs
import csv
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from mlapp.errors import InputError, Problem
from mlapp.schema.array_columns import check_names
from mlapp.schema.fields import Field, Schema

if TYPE_CHECKING:
    import pandas as pd

DELIMITERS = ",;\t|"
MISSING = frozenset(("", "NA", "N/A", "#N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "NaT"))
"""Missing values in a column without texts."""
TRUTH = {"true": True, "false": False}
MOST = 10
"""Number of wrong rows to report."""
LONGEST_ROW = 1_000_000
"""Most cells of a line."""
TOO_LONG = f"a line has more than {LONGEST_ROW} cells"
LONGEST_HEADER = 1_000_000
"""Characters of the first line in which its delimiter is looked for."""
BLOCK = 200_000
"""Characters of lines that are cut together."""
QUOTES = re.compile('"+')
LINE = re.compile(r"[^\r\n]+")
LINE_END = re.compile(r"[\r\n]")
WHOLE_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
NO_NUMBER = re.compile(r"[^0-9eE.+\n-]")
NO_DIGIT = re.compile(r"[^0-9+\n-]")
WHOLE_NUMBER = re.compile(r"(?:^|\n)[+-]?\d+(?:\n|$)")
LEADING_ZERO = re.compile(r"(?:^|\n)[+-]?0\d")
ZERO_FIRST = re.compile(r"[+-]?0\d+(\.\d*)?")
"""A number with leading zeros, such as a postal code, is a text."""
Cells = Sequence["str | None"]
EMPTY = ""
"""An empty cell in quotes. One without is None."""


class CsvError(ValueError):
    """The bytes are not CSV."""


def read_csv(content: bytes, schema: Schema) -> pd.DataFrame | list[Any]:
    """The rows of a CSV: a table with the columns that its header names, or those of the schema in their order.

    Its first line is a header where one of its cells is the name of a column, in whatever letter case, or where it has
    not as many cells as the schema has columns. For a schema of arrays the rows come as lists of numbers.

    Raises:
        CsvError: not UTF-8 (or UTF-16 with a mark), or a quote that does not end.
        InputError: a row has more or fewer cells than the header; a column is duplicated; there are no rows.
    """
    found, _ = next(read_csv_in_pieces(content, schema))
    return found


def read_csv_in_pieces(
    content: bytes, schema: Schema, *, widest: int = sys.maxsize, cells: int = sys.maxsize
) -> Iterator[tuple[pd.DataFrame | list[Any], int]]:
    """The rows of a CSV as `read_csv` gives them, some at a time, each time with the number of their cells.

    Args:
        widest: most columns.
        cells: cells of a piece.

    Raises:
        CsvError, InputError: as for `read_csv`; CsvError, more than `widest` columns.
    """
    text = _decode_text(content)
    by = detect_delimiter(text.partition("\n")[0], len(schema.fields))
    source = _Records(text, by) if '"' in text else _Lines(text, by)
    first = source.take_first()
    if first is None:
        raise InputError([Problem("the CSV is empty")], "Send a header line, and a line for each row.")
    if len(first) > widest:
        raise CsvError(f"it has {len(first)} columns; the model takes {len(schema.names)}")
    names = schema.names
    header = [EMPTY if cell is None else cell.strip() for cell in first]
    has_header = _is_header(header, schema)
    if not has_header:
        source.restart()
    width = len(header) if has_header else len(names) or len(header)
    columns = header if has_header else names
    _refuse_untyped(columns, schema)
    if schema.kind != "array":
        _refuse_twice(columns, names)
    order = None
    if schema.kind == "array" and has_header and schema.columns:
        check_names(header, schema)
        order = [header.index(name) for name in schema.columns]
    before, count = 0, max(cells // max(width, 1), 1)
    while True:
        body, rows = source.take_columns(width, count, before)
        if before and not rows:
            return
        if not rows:
            raise InputError([Problem("the CSV has a header and no rows")], "Send a line for each row.")
        if order is not None:
            body = [body[at] for at in order]
        yield _make_table(body, columns, schema), rows * width
        before += rows


def _make_table(body: list[Cells], header: Sequence[str], schema: Schema) -> pd.DataFrame | list[Any]:
    if schema.kind == "array":
        arrays = [_convert_numbers(cells, "int64") for cells in body]
        columns = [
            [_parse_number(cell) for cell in cells] if array is None else array.tolist()
            for cells, array in zip(body, arrays, strict=True)
        ]
        return [list(row) for row in zip(*columns, strict=True)]
    import pandas as pd

    fields = {field.name: field for field in schema.fields}
    table = {
        name: _convert_column(cells, fields.get(name), len(header)) for name, cells in zip(header, body, strict=True)
    }
    return pd.DataFrame(table)


class _Lines:
    """The cells of a text without quotes."""

    def __init__(self, text: str, by: str) -> None:
        self._text = text
        self._by = by
        self._at = 0
        self._lines: list[str] = []

    def take_first(self) -> list[str | None] | None:
        """The cells of the first line that is not blank."""
        found = LINE.search(self._text)
        if found is None:
            return None
        self._at = found.end()
        if found[0].count(self._by) >= LONGEST_ROW:
            raise CsvError(TOO_LONG)
        return [cell or None for cell in found[0].split(self._by)]

    def restart(self) -> None:
        """Let the first line be a row."""
        self._at = 0

    def take_columns(self, width: int, most: int, before: int) -> tuple[list[Cells], int]:
        """The cells of the next rows by their columns, and how many rows there are.

        Args:
            most: rows.
            before: rows that were taken before.

        Raises:
            InputError: a row has another number of cells than `width`.
        """
        while len(self._lines) < most and self._at < len(self._text):
            end = self._end_of_block()
            block = self._text[self._at : end]
            self._at = end
            if "\r" in block:
                block = block.replace("\r", "\n")
            self._lines += filter(None, block.split("\n"))
        lines, self._lines = self._lines[:most], self._lines[most:]
        by = self._by
        counts = [line.count(by) + 1 for line in lines]
        _check_counts(counts, width, before)
        flat: list[str | None] = list(by.join(lines).split(by)) if lines else []
        columns: list[Cells] = [flat[at::width] for at in range(width)]
        return [_blank_to_none(cells) for cells in columns], len(lines)

    def _end_of_block(self) -> int:
        """Where the line ends that is some way ahead."""
        found = LINE_END.search(self._text, self._at + BLOCK)
        return len(self._text) if found is None else found.end()


class _Records:
    """The cells of a text with quotes: by Python's reader, which does not tell an empty text from a missing one; where
    one of them may be in quotes, or is too long for it, by our own.
    """

    def __init__(self, text: str, by: str) -> None:
        self._text = text
        self._by = by
        by = re.escape(by)
        self._may_be_empty = re.search(rf'(?:^|[{by}\r\n])""(?:[{by}\r\n]|$)', text) is not None
        self.restart()

    def take_first(self) -> list[str | None] | None:
        """As `_Lines.take_first`."""
        first = next(self._rows, None)
        if first is not None and len(first) > LONGEST_ROW:
            raise CsvError(TOO_LONG)
        return first

    def restart(self) -> None:
        """As `_Lines.restart`."""
        self._rows = _iterate_rows(self._text, self._by) if self._may_be_empty else self._read_plain_rows()

    def take_columns(self, width: int, most: int, before: int) -> tuple[list[Cells], int]:
        """As `_Lines.take_columns`."""
        rows = list(islice(self._rows, most))
        counts = list(map(len, rows))
        _check_counts(counts, width, before)
        columns: list[Cells] = list(zip(*rows, strict=True))
        return columns if self._may_be_empty else list(map(_blank_to_none, columns)), len(rows)

    def _read_plain_rows(self) -> Iterator[list[Any]]:
        lines = (found[0] for found in WHOLE_LINE.finditer(self._text))
        taken = 0
        try:
            for row in csv.reader(lines, delimiter=self._by, strict=True):
                if row:
                    taken += 1
                    yield row
        except csv.Error:
            yield from islice(_iterate_rows(self._text, self._by), taken, None)


def _blank_to_none(cells: Sequence[str | None]) -> Cells:
    """The cells, with None for empty ones."""
    return [cell or None for cell in cells] if "" in cells else cells


def detect_delimiter(header: str, width: int = 0) -> str:
    """The delimiter of a line: one that makes `width` cells of it, else the one that it has most of outside quotes."""
    bare = "".join(header[:LONGEST_HEADER].split('"')[::2])
    if width > 1:
        for each in DELIMITERS:
            if bare.count(each) == width - 1:
                return each
    return max(DELIMITERS, key=bare.count) if width != 1 or "," not in bare else ","


def _decode_text(content: bytes) -> str:
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise CsvError(f"it is not {encoding[:6].rstrip('-').upper()}: {error.reason} at byte {error.start}") from None


def _iterate_rows(text: str, by: str) -> Iterator[list[str | None]]:
    """The cells of each line that is not blank; None for an empty one without quotes."""
    row: list[str | None] = []
    at = 0
    plain = re.compile(rf'([^"{re.escape(by)}\r\n][^{re.escape(by)}\r\n]*|)')
    ending = re.compile(rf"{re.escape(by)}|\r\n|\n|\r|\Z")
    while at < len(text):
        start = at
        if text[at] == '"':
            at = _find_closing_quote(text, at)
            cell: str | None = text[start + 1 : at - 1].replace('""', '"')
        else:
            found = plain.match(text, at)
            assert found is not None
            at = found.end()
            cell = found[0] or None
        ends = ending.match(text, at)
        if ends is None or at < 0:
            raise CsvError(f"the quotes in line {text.count(chr(10), 0, start) + 1} do not end where the cell ends")
        row.append(cell)
        if len(row) > LONGEST_ROW:
            raise CsvError(TOO_LONG)
        at, end = ends.end(), ends[0]
        if end != by:
            if row != [None]:
                yield row
            row = []
        elif at == len(text):
            row.append(None)
    if row:
        yield row


def _find_closing_quote(text: str, at: int) -> int:
    """The place behind a quoted cell that begins there: two quotes in it are one of its text. -1: it does not end."""
    at += 1
    while (run := QUOTES.search(text, at)) is not None:
        at = run.end()
        if (at - run.start()) % 2:
            return at
    return -1


def _is_header(header: list[str], schema: Schema) -> bool:
    if schema.kind == "array":
        return any(_parse_number(cell) is cell for cell in header if cell)
    known = {name.strip().casefold() for name in (*schema.names, *schema.unused)}
    return len(header) != len(schema.fields) or any(cell.casefold() in known for cell in header)


def _check_counts(counts: Sequence[int], width: int, before: int) -> None:
    """Check that rows have as many cells as the header, where so many rows are before them."""
    if not counts or (min(counts) == width and max(counts) == width):
        return
    if max(counts) > LONGEST_ROW:
        raise CsvError(TOO_LONG)
    wrong = ((row, count) for row, count in enumerate(counts, before) if count != width)
    problems = [
        Problem(f"row {row} has {count} cells instead of {width}", row=row) for row, count in islice(wrong, MOST)
    ]
    raise InputError(problems, "Send the same number of cells in each row; quote cells that contain the delimiter.")


def _refuse_twice(header: Sequence[str], names: Sequence[str]) -> None:
    counts = Counter(header)
    twice = [name for name in names if counts[name] > 1]
    if twice:
        raise InputError([Problem(f"column '{name}' is there twice", field=name) for name in twice[:MOST]])


def _refuse_untyped(header: Sequence[str], schema: Schema) -> None:
    """Refuse columns of lists, records, or values of several types: their cells would all be texts."""
    untyped = {field.name for field in schema.fields if field.type == "any" and field.example is not None}
    if found := [name for name in header if name in untyped]:
        details = [f"column '{name}' has values of several types, lists or records" for name in found[:MOST]]
        problems = [Problem(detail, field=name) for detail, name in zip(details, found, strict=False)]
        raise InputError(problems, "CSV cannot distinguish them: send JSON.")


def _convert_column(cells: Sequence[str | None], field: Field | None, width: int) -> Any:
    """A column's cells as values of its field's type, as far as they are such."""
    import numpy as np
    import pandas as pd

    if width == 1 and field is not None and field.nullable:
        cells = [cell or None for cell in cells]  # writers put quotes around the empty cell of an only column
    if field is None or field.type == "any":
        dtype = _guess_dtype(cells)
    else:
        dtype = {"integer": "int64", "number": "float64"}.get(field.type)
    numbers = _convert_numbers(cells, dtype)
    if numbers is not None:
        return numbers
    read = _choose_cell_reader(field)
    values: list[Any] = list(cells) if read is _keep_cell else [read(cell) for cell in cells]
    kinds = set(map(type, values))
    if kinds == {float}:
        return np.array(values, dtype="float64")
    if kinds == {int} and min(values) >= -(2**63) and max(values) < 2**63:
        return np.array(values, dtype="int64")
    if kinds == {bool}:
        return np.array(values)
    return pd.Series(values, dtype=object)


def _guess_dtype(cells: Cells) -> str | None:
    """The dtype of cells of unknown type if they look like whole numbers or floats; otherwise None.

    Faster than `_parse_untyped` for each cell, with the same result.
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


def _convert_numbers(cells: Cells, dtype: str | None) -> Any:
    """Cells that are all whole numbers of 64 bits, or all floats, as an array; None for any others.

    Args:
        dtype: int64, float64, or None for neither.
    """
    import numpy as np

    if dtype is None:
        return None
    try:
        found = np.fromiter(map(float if dtype == "float64" else int, cells), dtype, len(cells))  # type: ignore[arg-type]
        has_underscore = "_" in "".join(cells)  # type: ignore[arg-type]  # which Python allows in numbers
    except (TypeError, ValueError, OverflowError):
        return None
    return None if has_underscore or np.isnan(found).any() else found


def _keep_cell(cell: str | None) -> str | None:
    return cell


def _choose_cell_reader(field: Field | None) -> Callable[[str | None], Any]:
    if field is None or field.type == "any":
        return _parse_untyped
    if field.type in ("integer", "number"):
        return _parse_number if field.type == "integer" else _parse_float
    if field.type == "boolean":
        return _parse_boolean
    if field.type == "category" and not all(isinstance(value, str) for value in field.categories or ()):
        known = {str(value): value for value in field.categories or ()}
        return lambda cell: None if _is_missing(cell) else known.get(cell or "", _parse_untyped(cell))
    if field.type in ("string", "category", "bytes"):  # `null` is base64, too
        return _keep_cell
    return lambda cell: None if _is_missing(cell) else cell


def _is_missing(cell: str | None) -> bool:
    return cell is None or cell.strip() in MISSING


def _parse_number(cell: str | None) -> Any:
    """A whole number or a float; the text itself where it is neither."""
    if cell is None or cell in MISSING:
        return None
    if "_" in cell:  # which Python allows in numbers
        return cell
    try:
        return int(cell)
    except ValueError:
        return _parse_float(cell)


def _parse_float(cell: str | None) -> Any:
    if cell is None or cell in MISSING:
        return None
    try:
        return float(cell) if "_" not in cell else cell
    except ValueError:
        return None if _is_missing(cell) else cell


def _parse_boolean(cell: str | None) -> Any:
    return None if _is_missing(cell) else TRUTH.get(cell.strip().lower(), cell)  # type: ignore[union-attr]


def _parse_untyped(cell: str | None) -> Any:
    """The value of a cell without a known type: a number without leading zeros, true or false, else a text."""
    if cell is None:
        return None
    if ZERO_FIRST.fullmatch(cell):
        return cell
    value = TRUTH.get(cell.lower(), cell)
    return _parse_number(cell) if value is cell and cell not in MISSING else value
