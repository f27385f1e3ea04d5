"""Features other than tables and arrays: a Series, a dict of arrays, a list, a PyTorch dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlapp.errors import InputError, Problem
from mlapp.schema.dtypes import parse_pandas_dtype
from mlapp.schema.fields import Schema

if TYPE_CHECKING:
    import numpy as np


def count_feature_rows(features: Any) -> int | None:
    """The number of rows of features; None if they cannot be counted."""
    if isinstance(features, Mapping):
        return next((count_feature_rows(part) for part in features.values()), 0)
    shape = getattr(features, "shape", None)
    if shape:
        return int(shape[0])
    return len(features) if hasattr(features, "__len__") else None


def take_feature_rows(features: Any, rows: Sequence[int] | np.ndarray[Any, Any]) -> Any:
    """Some rows of features, in the same form: a table, an array, a list, a dict of arrays, a dataset.

    Args:
        rows: positions, in any order; duplicates are allowed.

    Returns:
        A table's rows are numbered from 0, as in a request.
    """
    if isinstance(features, Mapping):
        return {name: take_feature_rows(part, rows) for name, part in features.items()}
    if hasattr(features, "iloc"):
        return features.iloc[rows].reset_index(drop=True)
    if is_torch_dataset(features):
        from torch.utils.data import Subset

        return Subset(features, [int(row) for row in rows])
    if type(features).__module__.startswith("pyarrow"):
        return features.take(list(rows))
    if hasattr(features, "tocsr"):  # a sparse matrix; only some formats support selecting rows
        features = features.tocsr()
    is_array = not isinstance(features, (list, tuple)) and hasattr(features, "shape")
    return features[list(rows)] if is_array else [features[row] for row in rows]


def concatenate_features(features: list[Any]) -> Any:
    """Concatenate the rows of several tables, arrays or lists of one kind."""
    first = features[0]
    if isinstance(first, list):
        return [row for part in features for row in part]
    if isinstance(first, dict):
        return {name: concatenate_features([part[name] for part in features]) for name in first}
    if hasattr(first, "iloc"):
        import pandas as pd

        return pd.concat(features, ignore_index=True)
    if is_torch_dataset(first):
        from torch.utils.data import ConcatDataset

        return ConcatDataset(features)
    import numpy as np

    return np.concatenate(features)


def is_torch_dataset(features: Any) -> bool:
    """Whether features are a PyTorch dataset with indexable rows."""
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(features).__mro__}
    return "torch.utils.data.dataset.Dataset" in names and hasattr(features, "__len__")


def unwrap_dataset_row(row: Any) -> Any:
    """The tensor of a dataset's row: `TensorDataset` puts it into a tuple."""
    return row[0] if isinstance(row, (tuple, list)) and len(row) == 1 else row


def build_container_features(inputs: Any, schema: Schema) -> Any:
    """Features in training's form, from the rows that a client sends.

    Args:
        inputs: a list of JSON values; for a dict of arrays, records or the arrays by name. Also training's form.

    Raises:
        InputError: an array is missing, unknown or has another shape; a value does not fit the dtype.
    """
    if schema.container == "series":
        return _make_series_container(inputs, schema)
    if schema.container == "dict":
        return _make_array_container(inputs, schema)
    if schema.container in ("dataset", "tensor_dataset"):
        return inputs if is_torch_dataset(inputs) else _make_dataset_container(inputs, schema)
    return inputs if hasattr(inputs, "__len__") and not isinstance(inputs, (str, dict)) else [inputs]


def _make_series_container(inputs: Any, schema: Schema) -> Any:
    import pandas as pd

    values = [inputs] if isinstance(inputs, str) or not hasattr(inputs, "__len__") else list(inputs)
    if schema.dtype in ("str", "string", "string[pyarrow]"):
        for row, value in enumerate(values):
            if not isinstance(value, str) and value is not None:
                raise InputError([Problem(f"row {row}: {value!r:.60} is not a string", row=row)])
    try:
        return pd.Series(values, dtype=parse_pandas_dtype(schema.dtype or "object"))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError([Problem(f"inputs is not a list of {schema.dtype}: {error}")]) from None


def _make_dataset_container(inputs: Any, schema: Schema) -> Any:
    import numpy as np
    import torch
    from torch.utils.data import Dataset, TensorDataset

    class Rows(Dataset[Any]):  # type: ignore[misc,unused-ignore]
        """One tensor per row, as in training's dataset."""

        def __init__(self, rows: torch.Tensor) -> None:
            self._rows = rows

        def __len__(self) -> int:
            return len(self._rows)

        def __getitem__(self, row: int) -> torch.Tensor:
            return self._rows[row]

    try:
        array = np.asarray(inputs)
        if array.dtype.kind not in "biuf" or list(array.shape[1:]) != schema.shape or not array.ndim:
            raise ValueError
        rows = torch.from_numpy(array).to(getattr(torch, schema.dtype or "float32"))
        return Rows(rows) if schema.container == "dataset" else TensorDataset(rows)
    except (TypeError, ValueError):
        detail = f"inputs is not a list of {schema.dtype} with rows of shape {schema.shape}"
        raise InputError([Problem(detail)]) from None


def _make_array_container(inputs: Any, schema: Schema) -> dict[str, Any]:
    import numpy as np

    inputs = [inputs] if _is_container_record(inputs, schema) else inputs
    columns = inputs if isinstance(inputs, Mapping) else _split_container_columns(inputs, schema)
    if set(columns) != set(schema.names):
        odd_name = sorted(set(map(str, columns)) ^ set(schema.names))[0]
        is_missing = odd_name in schema.names
        raise InputError(
            [Problem(f"array '{odd_name}' is {'missing' if is_missing else 'unknown'}", field=odd_name)],
            _advise_container_records(schema),
        )
    arrays = {}
    for field in schema.fields:
        try:
            array = np.asarray(columns[field.name])
            cast = array.astype(field.dtype)
            is_same = array.dtype.kind in "biuf" and bool((np.isclose(cast, array, rtol=1e-6, equal_nan=True)).all())
        except (TypeError, ValueError, OverflowError):
            is_same = False
        if not is_same or cast.shape[1:] != np.shape(field.example):
            detail = f"array '{field.name}' is not of {field.dtype} with rows of shape {list(np.shape(field.example))}"
            raise InputError([Problem(detail, field=field.name)], _advise_container_records(schema))
        arrays[field.name] = cast
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) > 1:
        raise InputError([Problem("the arrays are not of one length")], _advise_container_records(schema))
    return arrays


def _is_container_record(inputs: Any, schema: Schema) -> bool:
    """Whether a mapping holds the values of one row: arrays of rows have one more dimension."""
    import numpy as np

    if not isinstance(inputs, Mapping) or inputs.keys() != set(schema.names):
        return False
    try:
        return all(np.shape(inputs[field.name]) == np.shape(field.example) for field in schema.fields)
    except ValueError:  # lists of different lengths
        return False


def _split_container_columns(inputs: Any, schema: Schema) -> dict[str, list[Any]]:
    rows = list(inputs) if hasattr(inputs, "__iter__") and not isinstance(inputs, str) else [inputs]
    for row, record in enumerate(rows):
        if not isinstance(record, Mapping) or record.keys() != set(schema.names):
            raise InputError(
                [Problem(f"row {row} is not a record of the arrays", row=row)], _advise_container_records(schema)
            )
    return {name: [record[name] for record in rows] for name in schema.names}


def _advise_container_records(schema: Schema) -> str:
    return f"Send records, or arrays by name: {', '.join(schema.names)}."
