"""Inputs of a request as an array of the dtype and shape that a schema says."""

from __future__ import annotations

import itertools
import numbers
from typing import TYPE_CHECKING, Any

from mlapp.errors import InputError, Problem

if TYPE_CHECKING:
    import numpy as np


def to_typed_array(inputs: Any, shape: list[int], dtype: str | None) -> Any:
    import numpy as np

    wanted = np.dtype(dtype)
    try:
        given = np.asarray(inputs)
        if not all(_is_castable_to_array(found, wanted.kind) for found in _collect_array_input_types(inputs, given)):
            raise ValueError("a value is of another type")
        with np.errstate(invalid="ignore", over="ignore"):
            array = given.astype(wanted, copy=False)
        if wanted.kind == "f" and given.dtype.kind in "fiu" and bool((np.isinf(array) & np.isfinite(given)).any()):
            raise ValueError("a value is beyond it")
        # NumPy truncates values that do not fit an integer type.
        if wanted.kind in "iu" and given.dtype != wanted and not (array == given).all():
            raise ValueError("a value is beyond it or not whole")
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError([Problem(f"inputs is not an array of {dtype}: {error}")]) from None
    if list(array.shape[1:]) != shape or not array.ndim:
        problem = f"inputs has the shape {list(array.shape)}; the model takes a list of rows of shape {shape}"
        if list(array.shape) == shape:
            problem = f"inputs is a single row of shape {shape}, not a list of rows: put it into a list"
        raise InputError([Problem(problem)], "Send a list of such rows.")
    return array


def _collect_array_input_types(inputs: Any, array: np.ndarray[Any, Any]) -> set[type]:
    """The types of the values before NumPy unifies them: it converts texts, true and false to numbers."""
    if array.dtype.kind == "O":
        return set(map(type, array.ravel()))
    values = inputs
    while isinstance(values, list) and values and isinstance(values[0], list):
        values = list(itertools.chain.from_iterable(values))
    return set(map(type, values)) if isinstance(values, list) else {array.dtype.type}


def _is_castable_to_array(found: type, kind: str) -> bool:
    """Whether a dtype of this kind can hold values of a type. A missing value is NaN, which only floats hold."""
    if found is type(None):
        return kind == "f"
    if found.__name__ in ("bool", "bool_"):
        return kind == "b"
    is_array = hasattr(found, "__array__") and not issubclass(found, str)
    return kind != "b" and (issubclass(found, numbers.Real) or is_array)
