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
MOST = 10
"""Maximum number of wrong rows that an error names."""
LONGEST_ROW = 1_000_000
"""Maximum cells of a line."""
TOO_LONG = f"a line has more than {LONGEST_ROW} cells"
LONGEST_HEADER = 1_000_000
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


def open_csv_lines(text: str, by: str) -> Lines | Records:
    """The rows of a CSV text."""
    if '"' not in text:
        return Lines(text, by, _blank_csv_cells_to_none)
    marked = _mark_empty_csv_texts(text, by)
    if marked is not None and '"' not in marked:
        return Lines(marked, by, _unmark_csv_line_cells)
    return Records(text, by, marked)


class Lines:
    """The rows of a text without quotes.

    Args:
        convert: returns the cells of a column with None for missing ones.
    """

    def __init__(self, text: str, by: str, convert: Callable[[Cells], Cells]) -> None:
        self._text = text
        self._by = by
        self._convert = convert
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
        return list(self._convert(found[0].split(self._by)))

    def restart(self) -> None:
        """Start again at the first line, which is a row and no header."""
        self._at = 0

    def take_columns(self, width: int, most: int, before: int) -> tuple[list[Cells], int]:
        """The cells of the next rows, column by column, and the number of rows.

        Args:
            most: maximum number of rows.
            before: number of rows that were taken before.

        Raises:
            InputError: a row has another number of cells than `width`.
        """
        while len(self._lines) < most and self._at < len(self._text):
            end = self._find_line_block_end()
            block = self._text[self._at : end]
            self._at = end
            if "\r" in block:
                block = block.replace("\r", "\n")
            self._lines += filter(None, block.split("\n"))
        lines, self._lines = self._lines[:most], self._lines[most:]
        by = self._by
        counts = [line.count(by) + 1 for line in lines]
        _check_csv_line_widths(counts, width, before)
        flat: list[str | None] = list(by.join(lines).split(by)) if lines else []
        columns: list[Cells] = [flat[at::width] for at in range(width)]
        return list(map(self._convert, columns)), len(lines)

    def _find_line_block_end(self) -> int:
        """The position after the first line that ends more than `BLOCK` characters ahead."""
        found = LINE_END.search(self._text, self._at + BLOCK)
        return len(self._text) if found is None else found.end()


class Records:
    """The rows of a text with quotes.

    Python's CSV reader splits the text, in which empty quoted texts are marked. If they cannot be marked, or a cell is
    too long for Python's reader, `_iterate_csv_lines` splits it, which is slower.

    Args:
        marked: the text with `MARK` for each empty quoted text; None if they cannot be marked.
    """

    def __init__(self, text: str, by: str, marked: str | None) -> None:
        self._text = text
        self._by = by
        self._marked = marked
        self.restart()

    def take_first(self) -> list[str | None] | None:
        """As `Lines.take_first`."""
        first = next(self._rows, None)
        if first is not None and len(first) > LONGEST_ROW:
            raise CsvError(TOO_LONG)
        return first if first is None or self._marked is None else list(_unmark_csv_line_cells(first))

    def restart(self) -> None:
        """As `Lines.restart`."""
        marked = self._marked
        self._rows = _iterate_csv_lines(self._text, self._by) if marked is None else self._read_marked_lines(marked)

    def take_columns(self, width: int, most: int, before: int) -> tuple[list[Cells], int]:
        """As `Lines.take_columns`."""
        rows = list(islice(self._rows, most))
        counts = list(map(len, rows))
        _check_csv_line_widths(counts, width, before)
        columns: list[Cells] = list(zip(*rows, strict=True))
        return columns if self._marked is None else list(map(_unmark_csv_line_cells, columns)), len(rows)

    def _read_marked_lines(self, text: str) -> Iterator[list[Any]]:
        """Rows in which missing cells are empty, and empty texts are `MARK`."""
        taken = 0
        try:
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=self._by, strict=True):
                if row:
                    taken += 1
                    yield row
        except csv.Error:
            for found in islice(_iterate_csv_lines(self._text, self._by), taken, None):
                yield [MARK if cell == "" else cell or "" for cell in found]


def _mark_empty_csv_texts(text: str, by: str) -> str | None:
    """The text with `MARK` for each empty quoted text; None if two quotes can also be a part of a cell."""
    end = rf"[{re.escape(by)}\r\n]"
    empty = rf'(?:(?<={end})|\A)""(?={end}|\Z)'
    if MARK in text:
        return None
    if re.search(empty, text) is None:
        return text
    marked, count = re.subn(empty, MARK, text)
    return marked if _count_empty_csv_texts(text.encode(), by) == count else None


def _count_empty_csv_texts(text: bytes, by: str) -> int | None:
    """The number of empty quoted texts; None if a quote is neither at an end of a cell nor doubled."""
    import numpy as np

    codes = np.frombuffer(text, "uint8")
    quotes = np.flatnonzero(codes == ord('"'))
    if len(quotes) % 2:
        return None
    first, last = quotes[::2], quotes[1::2]
    is_end = np.zeros(256, dtype=bool)
    is_end[[ord(by), ord("\r"), ord("\n")]] = True
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
    bare = "".join(header[:LONGEST_HEADER].split('"')[::2])
    if width > 1:
        for each in DELIMITERS:
            if bare.count(each) == width - 1:
                return each
    return max(DELIMITERS, key=bare.count) if width != 1 or "," not in bare else ","


def _iterate_csv_lines(text: str, by: str) -> Iterator[list[str | None]]:
    """The cells of each line that is not blank; None for an empty cell without quotes."""
    row: list[str | None] = []
    at = 0
    plain = re.compile(rf'([^"{re.escape(by)}\r\n][^{re.escape(by)}\r\n]*|)')
    ending = re.compile(rf"{re.escape(by)}|\r\n|\n|\r|\Z")
    while at < len(text):
        start = at
        if text[at] == '"':
            at = _find_closing_csv_quote(text, at)
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


def _find_closing_csv_quote(text: str, at: int) -> int:
    """The position after the quoted cell that begins at `at`; -1 if it has no end. Doubled quotes do not end it."""
    at += 1
    while (run := QUOTES.search(text, at)) is not None:
        at = run.end()
        if (at - run.start()) % 2:
            return at
    return -1


def _check_csv_line_widths(counts: Sequence[int], width: int, before: int) -> None:
    """Check that each row has `width` cells. `before` is the number of the first row, for errors."""
    if not counts or (min(counts) == width and max(counts) == width):
        return
    if max(counts) > LONGEST_ROW:
        raise CsvError(TOO_LONG)
    wrong = ((row, count) for row, count in enumerate(counts, before) if count != width)
    problems = [
        Problem(f"row {row} has {count} cells instead of {width}", row=row) for row, count in islice(wrong, MOST)
    ]
    raise InputError(problems, "Send the same number of cells in each row; quote cells that contain the delimiter.")
