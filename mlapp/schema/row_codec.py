"""Decodes rows and records of common types (numbers, booleans, texts) directly into the schema's types.

msgspec decodes them against types made from the schema: valid rows fit the schema, and no cell becomes more than one
Python object. All other forms, and all errors, go through `make_request_table`, which accepts more forms and reports
exactly what is wrong.
"""

from __future__ import annotations

import re
import struct
import types
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from mlapp.schema.fields import Schema
from mlapp.schema.part import Part
from mlapp.schema.row_types import PACKED, find_cell_type, find_field_type, make_pandas_column, make_row_type

if TYPE_CHECKING:
    from mlapp.schema.number_rows import NumberRows

SeveralDecoder: TypeAlias = Callable[["list[bytes]"], "list[Part | None]"]
REFUSED = (msgspec.MsgspecError, UnicodeError, struct.error, OverflowError, RecursionError)
"""Errors for a body with a row that does not fit the schema."""
MAX_REMEMBERED_BYTES = 64
"""Maximum bytes of a body's start that are remembered."""
MAX_START_BYTES = 4096
"""Maximum bytes before the first row."""
SHAPE = re.compile(rb'\s*(?:\{\s*"(?P<key>\w+)"\s*:\s*)?\[\s*(?P<row>[\[{])')

ESCAPED = re.compile(r'["\\\x00-\x1f]')


class RowCodec:
    """Decodes rows and records that fit a schema, and makes features of them.

    Args:
        keys: the keys of a JSON object that can hold the list of rows; a bare list is accepted too.
        takes_array: return the features of a schema of floats as an array, without a DataFrame.
    """

    def __init__(self, schema: Schema, keys: Sequence[str] = (), *, takes_array: bool = False) -> None:
        self.schema = schema
        self._keys = keys
        self._takes_array = takes_array
        self._decoders: dict[bytes, Callable[[bytes], Part | None]] = {}
        self._last_decoder: tuple[bytes, Callable[[bytes], Part | None] | None] = b"", None
        """The start of the last body, up to its first row, and its decoder: the bodies of one client start alike."""
        self._several_decoders: dict[bytes, Callable[[bytes], SeveralDecoder]] = {}
        self._decode_several: SeveralDecoder | None = None
        """Decodes bodies that begin like the last one."""
        self._rows: dict[type, Callable[[list[Any]], Part]] = {}
        self._numbers: dict[bytes, Callable[[bytes], Part | None]] = {}
        self.join: Callable[[list[Part]], Any] | None = None
        """Joins the features of several parts that are packed or tuples; None if the schema has no such parts."""
        self.from_matrix: Callable[[Any], Part | None] = lambda inputs: None
        """A packed part of an array or a table of finite numbers that fit the schema; None for other inputs."""
        self._prepare_row_decoders()

    def decode(self, body: bytes) -> Part | None:
        """The rows in a JSON body; None for a body of another form, or one that does not fit the schema."""
        start, decode = self._last_decoder
        if decode is None or not body.startswith(start):
            shape = SHAPE.match(body, 0, MAX_START_BYTES)
            if shape is None:
                return None
            form = (shape["key"] or b"") + shape["row"]
            decode = self._decoders.get(form)
            if decode is None:
                return None
            if shape.end() <= MAX_REMEMBERED_BYTES:
                self._last_decoder, self._decode_several = (shape[0], decode), self._several_decoders[form](shape[0])
        return decode(body)

    def decode_several(self, bodies: list[bytes]) -> list[Part | None]:
        """`decode` for each of several short bodies, which is faster if they begin like the last one.

        None also for a body that only `decode` reads.
        """
        return [None] * len(bodies) if self._decode_several is None else self._decode_several(bodies)

    def decode_numbers(self, body: bytes) -> Part | None:
        """`decode` for rows of numbers that simdjson reads in a few milliseconds; quickly None for all others."""
        shape = SHAPE.match(body, 0, MAX_START_BYTES) if self._numbers else None
        decode = None if shape is None else self._numbers.get((shape["key"] or b"") + shape["row"])
        if decode is None:
            return None
        from mlapp.schema.number_rows import MAX_CELLS_AT_ONCE, count_byte

        return decode(body) if count_byte(body, b",") < MAX_CELLS_AT_ONCE else None

    def convert(self, inputs: list[Any]) -> Part | None:
        """The rows of a list; None for a list of another form, or one that does not fit the schema."""
        convert = self._rows.get(type(inputs[0])) if inputs else None
        if convert is None:
            return None
        try:
            return convert(inputs)
        except REFUSED:
            return None

    def _prepare_row_decoders(self) -> None:
        schema = self.schema
        if schema.kind == "array" and len(schema.shape) == 1:
            code = PACKED.get(schema.dtype or "")
            if code:
                cells = [find_cell_type(code)] * schema.shape[0]
                rows = make_row_type([f"c{at}" for at in range(len(cells))], cells, array_like=True)
                self._use_packed_rows({b"[": rows}, [str(schema.dtype)] * len(cells), lambda cells: cells)
        elif schema.kind == "table" and schema.fields and len(set(schema.names)) == len(schema.names):
            cells = [find_field_type(field) for field in schema.fields]
            if any(kind is None for kind in cells):
                return
            # msgspec supports no field names that JSON escapes: `make_request_table` handles such records.
            positions = [f"c{at}" for at in range(len(cells))]
            kinds = {b"[": make_row_type(positions, cells, array_like=True)}
            if not any(ESCAPED.search(name) for name in schema.names):
                kinds[b"{"] = make_row_type(schema.names, cells, array_like=False)
            if all(field.dtype in PACKED and not field.nullable for field in schema.fields):
                self._use_packed_rows(kinds, [field.dtype for field in schema.fields], self._make_row_frame)
            else:
                self._use_row_tuples(kinds)

    def _use_packed_rows(self, rows: dict[bytes, type], dtypes: list[str], build: Callable[[Any], Any]) -> None:
        """Decode each row to its cells in machine form; a batch is a NumPy view of the concatenated rows."""
        import numpy as np

        from mlapp.schema.number_rows import NumberRows

        pack = struct.Struct("=" + "".join(PACKED[dtype] for dtype in dtypes)).pack
        astuple = msgspec.structs.astuple
        width = len(dtypes)
        names = self.schema.labels
        is_uniform = len(set(dtypes)) == 1
        dtype: Any = np.dtype(dtypes[0] if is_uniform else [(f"c{at}", name) for at, name in enumerate(dtypes)])

        def make_part(records: list[Any]) -> Part:
            if len(records) == 1:
                return Part(1, pack(*astuple(records[0])))
            return Part(len(records), b"".join([pack(*astuple(row)) for row in records]))

        def join_parts(parts: list[Part]) -> Any:
            packed: Any = parts[0].packed
            if len(parts) > 1 or memoryview(packed).readonly:
                # A bytearray, because a predictor can modify its features.
                packed = bytearray().join([part.packed or b"" for part in parts])
            cells = np.frombuffer(packed, dtype)
            return build(cells.reshape(-1, width) if is_uniform else cells)

        def convert_matrix(inputs: Any) -> Part | None:
            if getattr(inputs, "ndim", 0) != 2 or inputs.shape[1] != width or not len(inputs):
                return None
            if hasattr(inputs, "columns"):
                if any(column_dtype != dtype for column_dtype in inputs.dtypes) or list(inputs.columns) != names:
                    return None
                inputs = inputs.to_numpy()
            if inputs.dtype.kind not in "iuf" or not np.can_cast(inputs.dtype, dtype):
                return None
            cells = inputs.astype(dtype, copy=False)
            return Part(len(cells), cells.tobytes()) if np.isfinite(cells).all() else None

        self.join = join_parts
        if is_uniform and dtype.kind in "iuf":
            self.from_matrix = convert_matrix
        self._use_row_type(
            rows, width, make_part, numbers=NumberRows(dtypes) if NumberRows.can_decode(dtypes) else None
        )

    def _use_row_tuples(self, rows: dict[bytes, type]) -> None:
        """Decode each row to a tuple of its cells; a batch is built column by column."""
        astuple = msgspec.structs.astuple
        fields = self.schema.fields

        def make_part(records: list[Any]) -> Part:
            return Part(len(records), tuples=[astuple(row) for row in records])

        def join_parts(parts: list[Part]) -> Any:
            columns = zip(*(row for part in parts for row in part.tuples or ()), strict=True)
            return self._make_row_table(
                [make_pandas_column(field, cells) for field, cells in zip(fields, columns, strict=True)]
            )

        self.join = join_parts
        texts = [at for at, field in enumerate(fields) if field.type in ("string", "category")]
        self._use_row_type(rows, len(fields), make_part, texts)

    def _use_row_type(
        self,
        rows: dict[bytes, type],
        width: int,
        make_part: Callable[[list[Any]], Part],
        texts: Sequence[int] = (),
        numbers: NumberRows | None = None,
    ) -> None:
        """Create the decoders of rows.

        Args:
            rows: the msgspec types of a row, by its opening bracket.
            width: number of cells of a row.
            make_part: makes a part of decoded rows.
            texts: the positions of the texts in a row.
            numbers: decodes rows of numbers faster, if the schema has only numbers.
        """
        optional = [at for at in texts if self.schema.fields[at].nullable]
        for bracket, row in rows.items():
            names = width if bracket == b"{" else 0
            rows_type: Any = types.GenericAlias(list, (row,))
            keys = {"": rows_type}
            for key in self._keys:
                keys[key] = msgspec.defstruct("Body", [(key, rows_type)], gc=False, forbid_unknown_fields=True)
            for key, body in keys.items():
                form = key.encode() + bracket
                decode_several = _make_row_decoder(body, key, names, len(texts), optional, make_part)
                decode_general = self._decoders[form] = partial(_decode_one, decode_several)
                self._several_decoders[form] = partial(_ignore_start, decode_several)
                if numbers is not None and bracket == b"[":
                    self._numbers[form] = numbers.make_decoder(key, lambda body: None)
                    self._decoders[form] = numbers.make_decoder(key, decode_general)
                    self._several_decoders[form] = partial(numbers.make_row_decoder, key)
            for kind in (dict,) if names else (list, tuple):
                self._rows[kind] = _make_row_converter(rows_type, make_part)

    def _make_row_frame(self, cells: Any) -> Any:
        if self._takes_array and cells.dtype.names is None:
            return cells
        import pandas as pd

        if cells.dtype.names is None:
            return pd.DataFrame(cells, columns=self._columns, copy=False)
        return self._make_row_table([cells[name] for name in cells.dtype.names])

    def _make_row_table(self, columns: list[Any]) -> Any:
        import pandas as pd

        table = pd.DataFrame(dict(enumerate(columns)))
        table.columns = self._columns
        return table

    @cached_property
    def _columns(self) -> Any:
        """The column names as Python texts, which are faster to list than pandas' Arrow texts."""
        import numpy as np
        import pandas as pd

        index = pd.Index(self.schema.labels)
        return index.astype(pd.StringDtype("python", na_value=np.nan)) if str(index.dtype) == "str" else index


def _make_row_decoder(
    kind: Any, key: str, names: int, texts: int, optional: Sequence[int], make_part: Callable[[list[Any]], Part]
) -> SeveralDecoder:
    """A decoder of JSON bodies.

    Args:
        kind: the msgspec type of a body.
        key: its only key, which holds the list of rows; empty if the body is the list.
        names, texts: keys and texts in a row.
        optional: the positions of texts that can be null.
        make_part: makes a part of decoded rows.
    """
    from mlapp.schema.number_rows import count_byte

    decode = msgspec.json.Decoder(kind).decode
    outer = 2 if key else 0
    quotes = 2 * (names + texts)

    def count_quotes(part: Part) -> int:
        """The number of quotes in a body without a duplicate key or an escaped quote."""
        nulls = sum(cells[at] is None for cells in part.tuples or () for at in optional)
        return outer + quotes * part.rows - 2 * nulls

    def decode_bodies(bodies: list[bytes]) -> list[Part | None]:
        parts: list[Part | None] = []
        expected = 0
        for body in bodies:
            part = None
            try:
                content = decode(body)
                rows: list[Any] = getattr(content, key) if key else content
                if rows:
                    part = make_part(rows)
                    expected += outer + quotes * len(rows)
            except REFUSED:
                pass
            parts.append(part)
        # The types do not detect a duplicate key, which adds quotes. No body has fewer quotes than expected, so one
        # count of all bodies tells whether any has more.
        if optional or None in parts or count_byte(b"".join(bodies), b'"') > expected:
            for at, (body, part) in enumerate(zip(bodies, parts, strict=True)):
                if part is not None and body.count(b'"') > count_quotes(part):
                    parts[at] = None
        return parts

    return decode_bodies


def _decode_one(decode_several: SeveralDecoder, body: bytes) -> Part | None:
    return decode_several([body])[0]


def _ignore_start(decode_several: SeveralDecoder, start: bytes) -> SeveralDecoder:
    return decode_several


def _make_row_converter(kind: Any, make_part: Callable[[list[Any]], Part]) -> Callable[[list[Any]], Part]:
    return lambda inputs: make_part(msgspec.convert(inputs, kind))
