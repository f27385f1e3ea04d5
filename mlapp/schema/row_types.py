"""Creates msgspec types that check rows against the schema, and pandas columns of the checked cells."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from mlapp.schema import Field
from mlapp.schema.cast import find_missing_marker
from mlapp.schema.category import PLAIN, make_category_dtype

PACKED = {
    "float64": "d",
    "float32": "f",
    "int64": "q",
    "int32": "i",
    "int16": "h",
    "int8": "b",
    "uint64": "Q",
    "uint32": "I",
    "uint16": "H",
    "uint8": "B",
    "bool": "?",
}
"""The struct format of each dtype of fixed size."""


def make_row_type(names: Sequence[str], cells: Sequence[Any], *, array_like: bool) -> type:
    """The msgspec type of a row: a list of cells in order, or an object with these names."""
    own = [f"c{at}" for at in range(len(names))]
    return msgspec.defstruct(
        "Row",
        list(zip(own, cells, strict=True)),
        rename=dict(zip(own, names, strict=True)),
        array_like=array_like,
        forbid_unknown_fields=True,
        gc=False,
    )


def find_cell_type(code: str) -> Any:
    """The type of values that fit a struct format, with its bounds."""
    if code in "?df":
        return bool if code == "?" else float
    bits = 8 * struct.calcsize("=" + code)
    if code.isupper():
        return Annotated[int, msgspec.Meta(ge=0)] if bits == 64 else Annotated[int, msgspec.Meta(ge=0, lt=2**bits)]
    return Annotated[int, msgspec.Meta(ge=-(2 ** (bits - 1)), le=2 ** (bits - 1) - 1)]


def find_field_type(field: Field) -> Any:
    """The type of a field's cell, or None for a field that only `make_request_table` supports."""
    kind: Any = None
    match field.type:
        case "number" if field.dtype in PACKED:
            kind = float
        case "integer" if field.dtype in PACKED and not field.nullable:
            return find_cell_type(PACKED[field.dtype])
        case "boolean" if field.dtype == "bool" and not field.nullable:
            return bool
        case "string" if field.dtype in ("str", "object"):
            kind = str
        case "category" if field.category_dtype in PLAIN and _are_texts(field.categories):
            kind = Literal[tuple(field.categories or ())]
    return (
        kind | None
        if kind is not None and field.nullable and kind in (float, str)
        else None
        if field.nullable
        else kind
    )


def _are_texts(categories: list[Any] | None) -> bool:
    return bool(categories) and all(type(value) is str for value in categories or ())


def make_pandas_column(field: Field, values: Sequence[Any]) -> Any:
    """The field's column in pandas' form."""
    import pandas as pd

    if field.type == "category":
        return pd.Categorical(values, dtype=make_category_dtype(field))
    if field.type == "string":
        if field.missing is not None and None in values:
            marker = find_missing_marker(field)
            values = [marker if value is None else value for value in values]
        return pd.Series(values, dtype="str" if field.dtype == "str" else object)
    import numpy as np

    return np.array(values, dtype=field.dtype)
