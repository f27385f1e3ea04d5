"""Rules of requests that a JSON Schema cannot express, for Schemathesis."""

from __future__ import annotations

import datetime
import math
from typing import Any

import schemathesis
from hypothesis import strategies

UNKNOWN = "x-schemathesis-unknown-property"


# A time without a zone, by the OpenAPI Format Registry; Schemathesis knows date-time alone.
YEARS = (datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1))
schemathesis.openapi.format(
    "date-time-local", strategies.datetimes(*YEARS).map(lambda time: time.isoformat(timespec="seconds"))
)


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Make up no CSV and no Arrow, which are any text and any bytes to a schema; a server ignores unknown headers."""
    if isinstance(case.body, dict) and "features" in case.body and not case.meta.generation.mode.is_positive:
        return False  # UnionML's form drops the target unread, whatever it holds
    return case.media_type in (None, "application/json") and UNKNOWN not in (case.headers or {})


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    """Make the lengths in a valid body agree: a table's columns, and a tensor's values with its shape."""
    if isinstance(case.body, dict) and case.meta.generation.mode.is_positive:
        for inputs in case.body.values():
            if isinstance(inputs, dict):
                _cut_columns(inputs)
            elif isinstance(inputs, list):
                for tensor in inputs:
                    if isinstance(tensor, dict) and {"shape", "data", "datatype"} <= tensor.keys():
                        _fill_shape(tensor)
    return case


def _cut_columns(inputs: dict[str, Any]) -> None:
    columns = {name: values for name, values in inputs.items() if isinstance(values, list) and values}
    rows = min(map(len, columns.values()), default=0)  # an ignored column may be anything
    inputs.update({name: values[:rows] for name, values in columns.items()})


def _fill_shape(tensor: dict[str, Any]) -> None:
    width = math.prod(tensor["shape"][1:])
    values = [value for value in tensor["data"] if not isinstance(value, list)]
    rows = len(values) // width
    if rows:
        tensor.update(shape=[rows, *tensor["shape"][1:]], data=values[: rows * width])
