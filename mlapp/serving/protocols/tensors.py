"""Tensors of the Open Inference Protocol v2, and the metadata of a model's input and output tensors.

https://github.com/kserve/open-inference-protocol. A table has a tensor for each column; an array is one tensor `inputs`
of shape [-1, columns]. For a table, clients can also send one such tensor with its columns in training order.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import msgspec

from mlapp.schema import Field, Schema

DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
FLOATS = ("FP16", "FP32", "FP64")
KINDS = {"integer": "INT64", "number": "FP64", "boolean": "BOOL"}
DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}
INPUTS = "inputs"
OUTPUTS = "predictions"


class Tensor(msgspec.Struct):
    """One tensor. A `BYTES` tensor is an object array of texts."""

    name: str
    array: Any
    datatype: str

    @property
    def shape(self) -> list[int]:
        return list(self.array.shape)

    def raw_bytes(self) -> bytes:
        """The little-endian, row-major bytes. The length of each text precedes it in four bytes."""
        if self.datatype != "BYTES":
            return bytes(self.array.astype(self.array.dtype.newbyteorder("<"), copy=False).tobytes())
        texts = [_to_tensor_bytes(item) for item in self.array.ravel()]
        return b"".join([struct.pack("<I", len(text)) + text for text in texts])


def describe_tensors(schema: Schema, name: str) -> list[dict[str, Any]]:
    """Metadata of the tensors of features or predictions."""
    if schema.kind == "table":
        return [
            {"name": field.name, "datatype": _find_tensor_datatype(field), "shape": [-1]} for field in schema.fields
        ]
    if schema.kind == "array":
        return [{"name": name, "datatype": DATATYPES.get(schema.dtype or "", "FP64"), "shape": [-1, *schema.shape]}]
    return [{"name": name, "datatype": KINDS.get(schema.dtype or "", "BYTES"), "shape": [-1]}]


def _find_tensor_datatype(field: Field) -> str:
    """The datatype of a column. The protocol has no missing values, so whole numbers with missing values are floats."""
    if field.type == "category":
        kinds = set(map(type, field.categories or ()))
        return {int: "INT64", float: "FP64", bool: "BOOL"}.get(kinds.pop(), "BYTES") if len(kinds) == 1 else "BYTES"
    if field.type not in ("integer", "number", "boolean"):
        return "BYTES"
    if field.type == "boolean":
        return "BYTES" if field.nullable else "BOOL"
    datatype = DATATYPES.get(re.split(r"[\[(]", field.dtype.lower())[0])
    if field.type == "integer":
        return "FP64" if field.nullable else datatype or "INT64"
    return (
        datatype
        if datatype in FLOATS
        else {"float": "FP32", "halffloat": "FP16"}.get(field.dtype.split("[")[0], "FP64")
    )


def _to_tensor_bytes(item: Any) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()
