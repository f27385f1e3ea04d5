"""The cells of a CSV text, row by row, before they have types."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from mlapp.errors import InputError, Problem
from mlapp.schema.csv_cells import Cells

DELIMITERS = ",;\t|"
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


class CsvError(ValueError):
    """The bytes are not CSV."""


class Lines:
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
        _check_cell_counts(counts, width, before)
        flat: list[str | None] = list(by.join(lines).split(by)) if lines else []
        columns: list[Cells] = [flat[at::width] for at in range(width)]
        return [_blank_to_none(cells) for cells in columns], len(lines)

    def _end_of_block(self) -> int:
        """Where the line ends that is some way ahead."""
        found = LINE_END.search(self._text, self._at + BLOCK)
        return len(self._text) if found is None else found.end()


class Records:
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
        """As `Lines.take_first`."""
        first = next(self._rows, None)
        if first is not None and len(first) > LONGEST_ROW:
            raise CsvError(TOO_LONG)
        return first

    def restart(self) -> None:
        """As `Lines.restart`."""
        self._rows = _iterate_rows(self._text, self._by) if self._may_be_empty else self._read_plain_rows()

    def take_columns(self, width: int, most: int, before: int) -> tuple[list[Cells], int]:
        """As `Lines.take_columns`."""
        rows = list(islice(self._rows, most))
        counts = list(map(len, rows))
        _check_cell_counts(counts, width, before)
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


def _check_cell_counts(counts: Sequence[int], width: int, before: int) -> None:
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
