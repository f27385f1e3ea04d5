"""Decodes rows of numbers from JSON directly into an array, if simdjson is installed.

simdjson decodes a row in less than half the time of msgspec, and many rows in a quarter, because no number becomes a
Python object. Both round to the nearest float. simdjson decodes only lists of lists of numbers, each as long as the
schema is wide; msgspec decodes all other texts, and reports their errors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from mlapp.schema.part import Part

try:
    import simdjson
except ImportError:  # no wheel for this Python or machine
    simdjson = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
IS_AVAILABLE = simdjson is not None
REFUSED = (ValueError, TypeError, RuntimeError, KeyError, OverflowError, MemoryError)
"""Errors of simdjson for a text of another form."""
LARGE = 1 << 19
"""Bytes from which a text gets its own parser: a parser keeps as much memory as its largest text needed."""
MAX_CELLS_AT_ONCE = 1 << 17
"""Number of cells that take about 5 ms to decode, however short they are."""
LONG = 1 << 14
"""Bytes from which NumPy counts faster than `bytes.count`."""
EXACT = 2**53
"""Integers below it are exact as floats."""
QUOTE, OPEN = b'"['
FEW = 16
"""Minimum rows of several types for which converting them column by column pays."""


class NumberRows:
    """Decodes rows of one width with one type, or one type per column.

    Args:
        dtypes: of the columns: floats and integers of NumPy.
    """

    def __init__(self, dtypes: list[str]) -> None:
        self._width = len(dtypes)
        self._dtype: Any = np.dtype(
            dtypes[0] if len(set(dtypes)) == 1 else [(f"c{at}", n) for at, n in enumerate(dtypes)]
        )
        self._code: Literal["d", "i"] = "i" if self._dtype.kind in "iu" else "d"
        self._is_double = self._dtype == np.float64
        self._columns = [(f"c{at}", np.dtype(name)) for at, name in enumerate(dtypes)]

    @staticmethod
    def can_decode(dtypes: list[str]) -> bool:
        """Whether it can decode columns of these types."""
        return (
            IS_AVAILABLE and bool(dtypes) and all(name != "uint64" and np.dtype(name).kind in "iuf" for name in dtypes)
        )

    def make_decoder(self, key: str, general: Callable[[bytes], T]) -> Callable[[bytes], Part | T]:
        """A decoder of the rows of numbers in a JSON text.

        Args:
            key: the only key of the object, which holds the list; empty if the text is the list.
            general: decodes the texts that are not JSON, not such a list, or with a number that does not fit its
                column's type.
        """
        width, code, is_double, convert = self._width, self._code, self._is_double, self._convert_number_cells

        def decode(body: bytes) -> Part | T:
            size = len(body)
            try:
                parse = _local.parse
            except AttributeError:
                parse = _make_number_rows_parser()
            try:
                rows: Any = parse(body) if size < LARGE else simdjson.Parser().parse(body)
                if key:
                    if len(rows) != 1:
                        raise ValueError("more than one key")
                    rows = rows[key]
                count = len(rows)
                # No other brackets than those of the rows: `as_buffer` would flatten a list within a row too.
                if count == 1:
                    is_flat = body.rfind(b"[") - 1 == body.find(b"[") or body.count(b"[") == 2
                else:
                    brackets = body.count(b"[") if size < LONG else count_byte(body, b"[")
                    is_flat = brackets == count + 1 and [*map(len, rows)].count(width) == count
                if is_flat:
                    cells = bytes(rows.as_buffer(of_type=code))
                    if len(cells) == 8 * count * width and count:
                        return Part(count, cells if is_double else convert(count, cells))
            except REFUSED:
                pass
            return general(body)

        return decode

    def make_row_decoder(self, key: str, start: bytes) -> Callable[[list[bytes]], list[Part | None]]:
        """A decoder of several short JSON texts with one row of numbers each.

        Its result has None for a text that begins or ends otherwise; the decoder of `make_decoder` decodes that.

        Args:
            key: as for `make_decoder`.
            start: the text up to the first number.
        """
        length, size, code = len(start), 8 * self._width, self._code
        is_double, convert = self._is_double, self._convert_number_cells
        end = b"]]}" if key else b"]]"
        last = -len(end)

        def decode(texts: list[bytes]) -> list[Part | None]:
            parse = getattr(_local, "parse", None) or _make_number_rows_parser()
            parts: list[Part | None] = []
            for text in texts:
                part = None
                inner = text[length:last]
                # One list in one list, and one key: there is no other opening bracket and no text.
                if text[:length] == start and text[last:] == end and OPEN not in inner and QUOTE not in inner:
                    try:
                        # The parsed value gets no name: the parser parses no text while a value of the last one lives.
                        cells = bytes((parse(text)[key] if key else parse(text)).as_buffer(of_type=code))
                        if len(cells) == size:
                            part = Part(1, cells if is_double else convert(1, cells))
                    except REFUSED:
                        pass
                parts.append(part)
            return parts

        return decode

    def _convert_number_cells(self, count: int, cells: bytes) -> bytes:
        """The cells in the columns' types.

        Raises:
            ValueError: a type cannot hold a value.
        """
        dtype = self._dtype
        numbers: NDArray[Any] = np.frombuffer(cells, np.int64 if self._code == "i" else np.float64)
        if dtype.names is None:
            return _cast_number_row_cells(numbers, dtype).tobytes()
        if count < FEW:
            raise ValueError("too few rows")
        table = np.empty(count, dtype)
        numbers = numbers.reshape(count, self._width)
        for at, (name, kind) in enumerate(self._columns):
            table[name] = _cast_number_row_cells(numbers[:, at], kind)
        return table.tobytes()


def read_json_number_row(text: bytes, dtype: str) -> NDArray[Any] | None:
    """The numbers of a flat JSON array.

    None if the text is something else, a number does not fit the type, or simdjson is not installed.

    Args:
        dtype: a float of NumPy, or an integer of at most 63 bits.
    """
    if not IS_AVAILABLE or text.count(b"[") != 1:
        return None
    target = np.dtype(dtype)
    is_whole = target.kind in "iu"
    try:
        parse: Any = (
            simdjson.Parser().parse
            if len(text) >= LARGE
            else getattr(_local, "parse", None) or _make_number_rows_parser()
        )
        cells = bytes(parse(text).as_buffer(of_type="i" if is_whole else "d"))
        return _cast_number_row_cells(np.frombuffer(cells, np.int64 if is_whole else np.float64), target)
    except (*REFUSED, AttributeError):  # a scalar or an object is not an array
        return None


def count_byte(text: bytes, byte: bytes) -> int:
    """The number of occurrences of a byte in a text. NumPy takes a fifth of the time for a long text."""
    if len(text) < LONG:
        return text.count(byte)
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord(byte)))


def _make_number_rows_parser() -> Callable[[bytes], Any]:
    """The thread's own parser, which parses one text at a time."""
    parse: Callable[[bytes], Any] = simdjson.Parser().parse
    _local.parse = parse
    return parse


def _cast_number_row_cells(values: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Numbers in a dtype that holds them exactly, or rounded to its nearest float.

    Raises:
        ValueError: a value exceeds the dtype, is not an integer, or may have been rounded before.
    """
    if values.dtype == dtype:
        return values
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            narrow: NDArray[Any] = values.astype(dtype)
        if not np.isfinite(narrow).all():
            raise ValueError("too large")
        return narrow
    limits = np.iinfo(dtype)
    if values.dtype.kind == "f" and ((np.abs(values) >= EXACT).any() or (values != np.trunc(values)).any()):
        raise ValueError("not whole")
    if values.min() < limits.min or values.max() > limits.max:
        raise ValueError("too large")
    return values.astype(dtype)


_local = threading.local()
