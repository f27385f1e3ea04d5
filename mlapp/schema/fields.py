"""The format of a schema: plain data, stored in the manifest as JSON without loss."""

from __future__ import annotations

import re
import sys
from typing import Any, Literal

import msgspec

FieldType = Literal[
    "integer",
    "number",
    "boolean",
    "string",
    "datetime",
    "duration",
    "time",
    "period",
    "bytes",
    "uuid",
    "category",
    "any",
]
"""From `duration` to `uuid`, the values are texts in JSON: see `mlapp.schema.text_forms`."""


class Field(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One column.

    `categories` of a `category` are the accepted values; of a `string` they are the values seen in training.
    Values that JSON lacks are stored as the texts that clients send; `category_dtype` is their dtype.
    `minimum` and `maximum` are the range in training. They describe the data and are not enforced.
    `missing` is the marker of missing values in a column of objects: `nan`, `NA` or `NaT`; otherwise it is None.
    `is_redacted`: no value of the column can be stored, and the example is a placeholder.
    """

    name: str
    type: FieldType
    dtype: str = "object"
    nullable: bool = False
    minimum: int | float | str | None = None
    maximum: int | float | str | None = None
    categories: list[Any] | None = None
    category_dtype: str | None = None
    ordered: bool = False
    missing: str | None = None
    example: Any = None
    is_redacted: bool = False


class Schema(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The shape of features or predictions, row by row.

    `table`: named columns, in `fields`. `array`: rows of numbers, each of `shape` (empty for one number per row)
    and `dtype`. `any`: any JSON values.

    `unused`: other columns of the training table, such as the target. Requests can have them too.
    `container` is the form of `any` in training: a `series` of `dtype`; a `dict` of arrays, which are the `fields`; a
    PyTorch `dataset` with rows that are tensors of `shape` and `dtype`; or a `tensor_dataset`, in which each tensor is
    in a tuple.
    `columns` are the names of an `array`'s columns in training's table, if known. Clients can send them.
    `has_integer_names`: the table's column names are integers. Clients send them as texts, as JSON requires.
    """

    kind: Literal["table", "array", "any"]
    fields: list[Field] = []
    shape: list[int] = []
    dtype: str | None = None
    example: Any = None
    unused: list[str] = []
    container: Literal["", "series", "dict", "dataset", "tensor_dataset"] = ""
    has_integer_names: bool = False
    columns: list[str] = []

    @property
    def labels(self) -> list[Any]:
        """The column names in training."""
        return [int(name) for name in self.names] if self.has_integer_names else self.names

    @property
    def names(self) -> list[str]:
        """The column names, in training order."""
        return [field.name for field in self.fields]

    def example_inputs(self) -> list[Any]:
        """One row in a client's form, as the `inputs` of a request."""
        if self.kind == "table":
            return [{field.name: field.example for field in self.fields}]
        return [self.example]


class RawInputs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The `inputs` of a request to an app with a feature_loader.

    Attributes:
        example: valid inputs.
        schema: JSON Schema of the inputs, if the app declares it.
    """

    example: Any
    schema: dict[str, Any] | None = None


class ModelSchema(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Input and output of a model; `inputs` is the input of the app's feature_loader."""

    features: Schema
    predictions: Schema
    inputs: RawInputs | None = None

    def example_inputs(self, *, has_feature_loader: bool) -> Any:
        """Example `inputs` of a request; None if only the feature_loader knows their form."""
        if has_feature_loader:
            return None if self.inputs is None else self.inputs.example
        return self.features.example_inputs()


def find_integer_field_bounds(dtype: str) -> tuple[int, int]:
    """The smallest value of an integer dtype (NumPy's or pandas'), and the first integer that is too large.

    For other dtypes, the bounds of int64.
    """
    match = re.match(r"(u?)int(\d+)", dtype.lower())
    unsigned, bits = (match[1], int(match[2])) if match else ("", 64)
    return (0, 2**bits) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1))


def find_float_field_bound(dtype: str) -> float:
    """The largest number of a floating-point dtype (NumPy's, pandas' or Arrow's)."""
    name = dtype.lower()
    if "float16" in name or name.startswith("halffloat"):
        return 65504.0
    if "float32" in name or name.startswith("float["):  # Arrow's name is float
        return 3.4028234663852886e38
    return sys.float_info.max
