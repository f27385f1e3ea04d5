"""From the bodies of requests to features, one table or array for a batch.

The common forms (records or rows of numbers, booleans and texts) are decoded by msgspec against types made from the
model's schema: a body that passes fits the schema, and no cell becomes more than one Python object. Any other body,
and every wrong one, goes through the general way, which accepts more forms and says exactly what is wrong.
"""

from __future__ import annotations

import itertools
import re
import struct
import types
from collections.abc import Callable
from functools import cached_property
from typing import Any

import msgspec

from mlapp.errors import InputError, Problem
from mlapp.prediction import Predictor
from mlapp.serving.cells import PACKED, cell_type, column, field_type, row_type
from mlapp.serving.json_body import KEYS, TwiceError, inputs_of

SHAPE = re.compile(rb'\s*(?:\{\s*"(?P<key>inputs|features)"\s*:\s*)?\[\s*(?P<row>[\[{])')


class Part:
    """The features of one request: packed cells, tuples of cells, or a finished table, array or list."""

    __slots__ = ("features", "packed", "rows", "tuples")

    def __init__(
        self, rows: int, packed: bytes | None = None, tuples: list[tuple[Any, ...]] | None = None, features: Any = None
    ) -> None:
        self.rows = rows
        self.packed = packed
        self.tuples = tuples
        self.features = features


class Codec:
    """Bodies and features of one loaded model."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self._fast: dict[bytes, Callable[[bytes], Part]] = {}
        self._join: Callable[[list[Part]], Any] | None = None
        self._rows: dict[type, Callable[[list[Any]], Part]] = {}
        self._matrix: Callable[[Any], Part | None] = lambda inputs: None
        if predictor.pipeline.stage("feature_loader") is None:
            self._prepare()

    @property
    def is_by_row(self) -> bool:
        """Whether the features of a list of inputs are those of its pieces, one behind the other."""
        schema = self.predictor.schema.features
        if schema.kind == "any" or self.predictor.pipeline.stage("feature_loader") is not None:
            return False
        return all(field.type != "any" for field in schema.fields)  # its column's type depends on all the values

    def decode(self, body: bytes, first: int = 0) -> Part:
        """The features in the JSON body of `/predict`.

        Args:
            first: the number of its first row, where it is a piece of a larger body.

        Raises:
            HttpError: 400, it is not JSON; 422, it is neither a list nor an object with `inputs`.
            InputError: the inputs do not fit the schema. UserCodeError: the feature_loader raised.
        """
        shape = SHAPE.match(body)
        if shape is not None:
            decode = self._fast.get((shape["key"] or b"") + shape["row"])
            if decode is not None:
                try:
                    return decode(body)
                except (
                    msgspec.MsgspecError,
                    UnicodeDecodeError,
                    struct.error,
                    OverflowError,
                    TwiceError,
                    RecursionError,
                ):
                    pass
        return self.accept(inputs_of(body), first)

    def accept(self, inputs: Any, first: int = 0) -> Part:
        """Plain inputs, a DataFrame or an array as features.

        Args:
            first: as for `decode`.

        Raises:
            InputError: they do not fit the schema. UserCodeError: the feature_loader raised.
        """
        part = self._typed(inputs) if isinstance(inputs, list) else self._matrix(inputs)
        if part is not None:
            return part
        features = self.predictor.accept(self._named(inputs), first)
        rows = len(features) if hasattr(features, "__len__") else 1
        if not rows:
            raise InputError([Problem("inputs is empty: there is nothing to predict")])
        return self._matrix(features) or Part(rows, features=features)

    def _typed(self, inputs: list[Any]) -> Part | None:
        """Records or rows that fit the schema as they are, in the common way; None for any other list."""
        convert = self._rows.get(type(inputs[0])) if inputs else None
        if convert is None:
            return None
        try:
            return convert(inputs)
        except (msgspec.MsgspecError, struct.error, OverflowError, RecursionError):
            return None

    def _named(self, inputs: Any) -> Any:
        """An array whose columns can only be the schema's, as a table of them."""
        schema = self.predictor.schema.features
        if schema.kind != "table" or getattr(inputs, "ndim", 0) != 2 or not hasattr(inputs, "strides"):
            return inputs
        if inputs.shape[1] != len(schema.fields) or self.predictor.pipeline.stage("feature_loader") is not None:
            return inputs
        import pandas as pd

        return pd.DataFrame(inputs, columns=schema.names)

    def combine(self, parts: list[Part]) -> Any:
        """The features of several requests as one table, array or list."""
        if self._join is None:
            features = [part.features for part in parts]
        elif all(part.features is None for part in parts):
            return self._join(parts)
        else:
            features = []
            for is_raw, found in itertools.groupby(parts, lambda part: part.features is None):
                group = list(found)
                features += [self._join(group)] if is_raw else [part.features for part in group]
        return features[0] if len(features) == 1 else _concatenate(features)

    def combines(self, features: Any) -> bool:
        """Whether features of that kind can be put behind those of another request."""
        return isinstance(features, list) or hasattr(features, "columns") or hasattr(features, "dtype")

    def _prepare(self) -> None:
        schema = self.predictor.schema.features
        if schema.kind == "array" and len(schema.shape) == 1:
            code = PACKED.get(schema.dtype or "")
            if code:
                cells = [cell_type(code)] * schema.shape[0]
                rows = row_type([f"c{at}" for at in range(len(cells))], cells, array_like=True)
                self._use_packed({b"[": rows}, [str(schema.dtype)] * len(cells), lambda cells: cells)
        elif schema.kind == "table" and schema.fields and len(set(schema.names)) == len(schema.names):
            cells = [field_type(field) for field in schema.fields]
            if any(kind is None for kind in cells):
                return
            kinds = {
                b"[": row_type(schema.names, cells, array_like=True),
                b"{": row_type(schema.names, cells, array_like=False),
            }
            if all(field.dtype in PACKED and not field.nullable for field in schema.fields):
                self._use_packed(kinds, [field.dtype for field in schema.fields], self._frame_of)
            else:
                self._use_tuples(kinds)

    def _use_packed(self, rows: dict[bytes, type], dtypes: list[str], build: Callable[[Any], Any]) -> None:
        """Each row becomes its cells in machine form; a batch is their concatenation, seen through NumPy."""
        import numpy as np

        pack = struct.Struct("=" + "".join(PACKED[dtype] for dtype in dtypes)).pack
        astuple = msgspec.structs.astuple
        width = len(dtypes)
        names = self.predictor.schema.features.names
        alike = len(set(dtypes)) == 1
        dtype: Any = np.dtype(dtypes[0] if alike else [(f"c{at}", name) for at, name in enumerate(dtypes)])

        def part(found: list[Any]) -> Part:
            if len(found) == 1:
                return Part(1, pack(*astuple(found[0])))
            return Part(len(found), b"".join([pack(*astuple(row)) for row in found]))

        def join(parts: list[Part]) -> Any:
            # A bytearray, because a predictor may write into its features.
            cells = np.frombuffer(bytearray().join([part.packed or b"" for part in parts]), dtype)
            return build(cells.reshape(-1, width) if alike else cells)

        def matrix(inputs: Any) -> Part | None:
            """Finite numbers in one piece, an array or a conforming table, as the cells that they would be as JSON."""
            if getattr(inputs, "ndim", 0) != 2 or inputs.shape[1] != width or not len(inputs):
                return None
            if hasattr(inputs, "columns"):
                if any(found != dtype for found in inputs.dtypes) or list(inputs.columns) != names:
                    return None
                inputs = inputs.to_numpy()
            if inputs.dtype.kind not in "iuf" or not np.can_cast(inputs.dtype, dtype):
                return None
            cells = inputs.astype(dtype, copy=False)
            return Part(len(cells), cells.tobytes()) if np.isfinite(cells).all() else None

        self._join = join
        if alike and dtype.kind in "iuf":
            self._matrix = matrix
        self._use(rows, width, 0, part)

    def _use_tuples(self, rows: dict[bytes, type]) -> None:
        """Each row becomes a tuple of its cells; a batch is built column by column."""
        astuple = msgspec.structs.astuple
        fields = self.predictor.schema.features.fields

        def part(found: list[Any]) -> Part:
            return Part(len(found), tuples=[astuple(row) for row in found])

        def join(parts: list[Part]) -> Any:
            columns = zip(*(row for part in parts for row in part.tuples or ()), strict=True)
            return self._table([column(field, cells) for field, cells in zip(fields, columns, strict=True)])

        self._join = join
        texts = sum(field.type in ("string", "category") for field in fields)
        self._use(rows, len(fields), texts, part)

    def _use(self, rows: dict[bytes, type], width: int, texts: int, part: Callable[[list[Any]], Part]) -> None:
        for bracket, row in rows.items():
            names = width if bracket == b"{" else 0
            rows_type: Any = types.GenericAlias(list, (row,))
            self._fast[bracket] = _decoder(rows_type, "", names, texts, part)
            for kind in (dict,) if names else (list, tuple):
                self._rows[kind] = _converter(rows_type, part)
            for key in KEYS:
                body = msgspec.defstruct("Body", [(key, rows_type)], gc=False, forbid_unknown_fields=True)
                self._fast[key.encode() + bracket] = _decoder(body, key, names, texts, part)

    def _frame_of(self, cells: Any) -> Any:
        if self.predictor.takes_array and cells.dtype.names is None:
            return cells
        import pandas as pd

        if cells.dtype.names is None:
            return pd.DataFrame(cells, columns=self._columns, copy=False)
        return self._table([cells[name] for name in cells.dtype.names])

    def _table(self, columns: list[Any]) -> Any:
        import pandas as pd

        table = pd.DataFrame(dict(enumerate(columns)))
        table.columns = self._columns
        return table

    @cached_property
    def _columns(self) -> Any:
        """The names. pandas keeps texts in Arrow; as Python's own they are listed far quicker, once a call at least."""
        import numpy as np
        import pandas as pd

        index = pd.Index(self.predictor.schema.features.names)
        return index.astype(pd.StringDtype("python", na_value=np.nan)) if str(index.dtype) == "str" else index


def _decoder(kind: Any, key: str, names: int, texts: int, part: Callable[[list[Any]], Part]) -> Callable[[bytes], Part]:
    decode = msgspec.json.Decoder(kind).decode
    outer = 2 if key else 0
    quotes = 2 * (names + texts)

    def run(body: bytes) -> Part:
        found = decode(body)
        rows: list[Any] = getattr(found, key) if key else found
        # A key given twice is the one thing that the types do not see: then there are quotes too many.
        if body.count(b'"') > outer + quotes * len(rows):
            raise TwiceError
        return part(rows)

    return run


def _converter(kind: Any, part: Callable[[list[Any]], Part]) -> Callable[[list[Any]], Part]:
    return lambda inputs: part(msgspec.convert(inputs, kind))


def _concatenate(features: list[Any]) -> Any:
    first = features[0]
    if isinstance(first, list):
        return [row for part in features for row in part]
    if hasattr(first, "columns"):
        import pandas as pd

        return pd.concat(features, ignore_index=True)
    import numpy as np

    return np.concatenate(features)
