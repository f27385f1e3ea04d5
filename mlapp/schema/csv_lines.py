"""Splits a CSV text into rows and cells, which are texts."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from mlapp.errors import InputError, Problem
from mlapp.schema.csv_cells import Cells

DELIMITERS = ",;\t|"
MAX_REPORTED = 10
"""Maximum number of wrong rows that an error names."""
MAX_CELLS = 1_000_000
"""Maximum cells of a line."""
TOO_LONG = f"a line has more than {MAX_CELLS} cells"
MAX_HEADER_LENGTH = 1_000_000
"""Characters of the first line that are searched for the delimiter."""
BLOCK = 200_000
"""Characters of the text that are split into lines at once."""
MARK = "\0"
"""Placeholder of an empty quoted text, which Python's CSV reader does not distinguish from a missing cell."""
QUOTES = re.compile('"+')
LINE = re.compile(r"[^\r\n]+")
LINE_END = re.compile(r"[\r\n]")


class CsvError(ValueError):
    """The bytes are not CSV."""


def open_csv_rows(text: str, delimiter: str) -> UnquotedCsv | QuotedCsv:
    """The rows of a CSV text."""
    if '"' not in text:
        return UnquotedCsv(text, delimiter, _blank_csv_cells_to_none)
    marked = _mark_empty_csv_texts(text, delimiter)
    if marked is not None and '"' not in marked:
        return UnquotedCsv(marked, delimiter, _unmark_csv_line_cells)
    return QuotedCsv(text, delimiter, marked)


class UnquotedCsv:
    """The rows of a text without quotes.

    Args:
        convert: returns the cells of a column with None for missing ones.
    """

    def __init__(self, text: str, delimiter: str, convert: Callable[[Cells], Cells]) -> None:
        self._text = text
        self._delimiter = delimiter
        self._convert = convert
        self._at = 0
        self._lines: list[str] = []

    def take_first(self) -> list[str | None] | None:
        """The cells of the first line that is not blank."""
        line = LINE.search(self._text)
        if line is None:
            return None
        self._at = line.end()
        if line[0].count(self._delimiter) >= MAX_CELLS:
            raise CsvError(TOO_LONG)
        return list(self._convert(line[0].split(self._delimiter)))

    def restart(self) -> None:
        """Start again at the first line, which is a row and no header."""
        self._at = 0

    def take_columns(self, width: int, max_rows: int, rows_before: int) -> tuple[list[Cells], int]:
        """The cells of the next rows, column by column, and the number of rows.

        Args:
            max_rows: maximum number of rows.
            rows_before: number of rows that were taken before.

        Raises:
            InputError: a row has another number of cells than `width`.
        """
        while len(self._lines) < max_rows and self._at < len(self._text):
            end = self._find_line_block_end()
            block = self._text[self._at : end]
            self._at = end
            if "\r" in block:
                block = block.replace("\r", "\n")
            self._lines += filter(None, block.split("\n"))
        lines, self._lines = self._lines[:max_rows], self._lines[max_rows:]
        delimiter = self._delimiter
        counts = [line.count(delimiter) + 1 for line in lines]
        _check_csv_line_widths(counts, width, rows_before)
        flat: list[str | None] = list(delimiter.join(lines).split(delimiter)) if lines else []
        columns: list[Cells] = [flat[at::width] for at in range(width)]
        return list(map(self._convert, columns)), len(lines)

    def _find_line_block_end(self) -> int:
        """The position after the first line that ends more than `BLOCK` characters ahead."""
        line_end = LINE_END.search(self._text, self._at + BLOCK)
        return len(self._text) if line_end is None else line_end.end()


class QuotedCsv:
    """The rows of a text with quotes.

    Python's CSV reader splits the text, in which empty quoted texts are marked. If they cannot be marked, or a cell is
    too long for Python's reader, `_iterate_csv_lines` splits it, which is slower.

    Args:
        marked: the text with `MARK` for each empty quoted text; None if they cannot be marked.
    """

    def __init__(self, text: str, delimiter: str, marked: str | None) -> None:
        self._text = text
        self._delimiter = delimiter
        self._marked = marked
        self.restart()

    def take_first(self) -> list[str | None] | None:
        """As `UnquotedCsv.take_first`."""
        first = next(self._rows, None)
        if first is not None and len(first) > MAX_CELLS:
            raise CsvError(TOO_LONG)
        return first if first is None or self._marked is None else list(_unmark_csv_line_cells(first))

    def restart(self) -> None:
        """As `UnquotedCsv.restart`."""
        marked = self._marked
        self._rows = (
            _iterate_csv_lines(self._text, self._delimiter) if marked is None else self._read_marked_lines(marked)
        )

    def take_columns(self, width: int, max_rows: int, rows_before: int) -> tuple[list[Cells], int]:
        """As `UnquotedCsv.take_columns`."""
        rows = list(islice(self._rows, max_rows))
        counts = list(map(len, rows))
        _check_csv_line_widths(counts, width, rows_before)
        columns: list[Cells] = list(zip(*rows, strict=True))
        return columns if self._marked is None else list(map(_unmark_csv_line_cells, columns)), len(rows)

    def _read_marked_lines(self, text: str) -> Iterator[list[Any]]:
        """Rows in which missing cells are empty, and empty texts are `MARK`."""
        row_count = 0
        try:
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter, strict=True):
                if row:
                    row_count += 1
                    yield row
        except csv.Error:
            for cells in islice(_iterate_csv_lines(self._text, self._delimiter), row_count, None):
                yield [MARK if cell == "" else cell or "" for cell in cells]


def _mark_empty_csv_texts(text: str, delimiter: str) -> str | None:
    """The text with `MARK` for each empty quoted text; None if two quotes can also be a part of a cell."""
    end = rf"[{re.escape(delimiter)}\r\n]"
    empty = rf'(?:(?<={end})|\A)""(?={end}|\Z)'
    if MARK in text:
        return None
    if re.search(empty, text) is None:
        return text
    marked, count = re.subn(empty, MARK, text)
    return marked if _count_empty_csv_texts(text.encode(), delimiter) == count else None


def _count_empty_csv_texts(text: bytes, delimiter: str) -> int | None:
    """The number of empty quoted texts; None if a quote is neither at an end of a cell nor doubled."""
    import numpy as np

    codes = np.frombuffer(text, "uint8")
    quotes = np.flatnonzero(codes == ord('"'))
    if len(quotes) % 2:
        return None
    first, last = quotes[::2], quotes[1::2]
    is_end = np.zeros(256, dtype=bool)
    is_end[[ord(delimiter), ord("\r"), ord("\n")]] = True
    is_doubled = last[:-1] + 1 == first[1:]  # a quote within a cell, which looks like the end and the start of a text
    begins = is_end[codes[first - 1]]
    begins[0] |= first[0] == 0
    ends = is_end[codes[np.minimum(last + 1, len(codes) - 1)]]
    ends[-1] |= last[-1] == len(codes) - 1
    if not ((begins[1:] | is_doubled).all() and (ends[:-1] | is_doubled).all() and begins[0] and ends[-1]):
        return None
    return int(np.count_nonzero((first + 1 == last) & begins & ends))


def _unmark_csv_line_cells(cells: Cells) -> Cells:
    """The cells, with None for missing cells and empty texts for marks."""
    if MARK in cells:
        return ["" if cell == MARK else cell or None for cell in cells]
    return _blank_csv_cells_to_none(cells)


def _blank_csv_cells_to_none(cells: Sequence[str | None]) -> Cells:
    """The cells, with None for empty cells."""
    return [cell or None for cell in cells] if "" in cells else cells


def detect_line_delimiter(header: str, width: int = 0) -> str:
    """The delimiter of a line: one that splits it into `width` cells, or the most frequent one outside quotes."""
    unquoted = "".join(header[:MAX_HEADER_LENGTH].split('"')[::2])
    if width > 1:
        for delimiter in DELIMITERS:
            if unquoted.count(delimiter) == width - 1:
                return delimiter
    return max(DELIMITERS, key=unquoted.count) if width != 1 or "," not in unquoted else ","


def _iterate_csv_lines(text: str, delimiter: str) -> Iterator[list[str | None]]:
    """The cells of each line that is not blank; None for an empty cell without quotes."""
    row: list[str | None] = []
    position = 0
    plain = re.compile(rf'([^"{re.escape(delimiter)}\r\n][^{re.escape(delimiter)}\r\n]*|)')
    ending = re.compile(rf"{re.escape(delimiter)}|\r\n|\n|\r|\Z")
    while position < len(text):
        start = position
        if text[position] == '"':
            position = _find_closing_csv_quote(text, position)
            cell: str | None = text[start + 1 : position - 1].replace('""', '"')
        else:
            match = plain.match(text, position)
            assert match is not None
            position = match.end()
            cell = match[0] or None
        separator = ending.match(text, position)
        if separator is None or position < 0:
            raise CsvError(f"the quotes in line {text.count(chr(10), 0, start) + 1} do not end where the cell ends")
        row.append(cell)
        if len(row) > MAX_CELLS:
            raise CsvError(TOO_LONG)
        position, separator_text = separator.end(), separator[0]
        if separator_text != delimiter:
            if row != [None]:
                yield row
            row = []
        elif position == len(text):
            row.append(None)
    if row:
        yield row


def _find_closing_csv_quote(text: str, at: int) -> int:
    """The position after the quoted cell that begins at `at`; -1 if it has no end. Doubled quotes do not end it."""
    at += 1
    while (run := QUOTES.search(text, at)) is not None:
        at = run.end()
        if (at - run.start()) % 2:
            return at
    return -1


def _check_csv_line_widths(counts: Sequence[int], width: int, rows_before: int) -> None:
    """Check that each row has `width` cells. `rows_before` is the number of the first row, for errors."""
    if not counts or (min(counts) == width and max(counts) == width):
        return
    if max(counts) > MAX_CELLS:
        raise CsvError(TOO_LONG)
    wrong = ((row, count) for row, count in enumerate(counts, rows_before) if count != width)
    problems = [
        Problem(f"row {row} has {count} cells instead of {width}", row=row)
        for row, count in islice(wrong, MAX_REPORTED)
    ]
    raise InputError(problems, "Send the same number of cells in each row; quote cells that contain the delimiter.")
