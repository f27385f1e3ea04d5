"""Normalizes the result of a predictor to one form for every output.

A predictor may return what its library gives: a list, an array, a DataFrame, a sparse matrix, an Arrow or polars
table, a tensor, objects of its own classes. `normalize_predictions` makes a list, an array, a Series or a DataFrame of
it, with one entry a row; `normalize_to_rows` makes values that JSON holds of those. HTTP in each protocol, gRPC, the
command line, Python and batch prediction start from these, so that all of them answer the same.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import ipaddress
import numbers
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Set
from decimal import Decimal
from itertools import chain
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import msgspec

from mlapp.errors import DataError
from mlapp.schema.durations import count_nanoseconds, format_duration

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

MANY = 20_000
"""Rows that are listed in one go: in between, other threads get their turn."""
JSON_TYPES = frozenset((float, int, str, bool, type(None)))
TEXT = frozenset((str,))
PREDICTION = "prediction"
"""The column of a table of predictions that are one value each."""


class _NoJsonError(TypeError):
    """A value that JSON cannot represent."""


def normalize_predictions(predictions: Any, title: str) -> Any:
    """The result of a predictor as a list, a NumPy array, a Series or a DataFrame with unique text names.

    Args:
        predictions: no coroutine or iterator; the caller consumes those first.
        title: the predictor's name in errors.

    Raises:
        DataError: it is a single value, its rows have no order, or two columns have the same name.
    """
    if type(predictions) is list:
        return predictions
    library = type(predictions).__module__.partition(".")[0]
    if library == "numpy" and hasattr(predictions, "dtype"):
        return _normalize_array(predictions, title)
    if library == "pandas":
        return _normalize_pandas(predictions, title)
    if library in ("pyarrow", "polars"):
        return _normalize_arrow(predictions, title)
    if hasattr(predictions, "toarray"):  # a sparse matrix
        return predictions.toarray()
    if hasattr(predictions, "detach"):  # a tensor of PyTorch
        return _normalize_array(predictions.detach().cpu().numpy(), title)
    if hasattr(predictions, "to_pandas"):
        return _normalize_pandas(predictions.to_pandas(), title)
    if hasattr(predictions, "__array__"):
        import numpy as np

        return _normalize_array(np.asarray(predictions), title)
    if isinstance(predictions, Collection) and not isinstance(predictions, (str, bytes, bytearray, Mapping, Set)):
        return list(predictions)
    raise _no_prediction_rows_error(predictions, title)


def normalize_to_rows(predictions: Any, title: str) -> list[Any]:
    """Normalized predictions as a list of JSON values, one per row. NaN stays: JSON's encoder writes null.

    Dates and times are ISO 8601 texts, durations too; decimals are floats; UUIDs, paths and intervals are texts; an
    enumeration's member is its value; bytes are base64; dataclasses and models of pydantic, attrs and msgspec are
    records; a missing value is null.

    Raises:
        DataError: JSON has no form for a value; names its type and row.
    """
    try:
        if type(predictions) is list:
            return predictions if _are_plain_rows(predictions) else [_normalize_value(row) for row in predictions]
        if hasattr(predictions, "columns"):
            return _list_normalized_records(predictions)
        return _list_normalized_values(predictions)
    except _NoJsonError as error:
        raise _unsupported_value_error(predictions, title, error) from None


def _are_plain_rows(rows: list[Any]) -> bool:
    """Whether rows are JSON values, or lists or records of them. Runs in C."""
    kinds = set(map(type, rows))
    if JSON_TYPES.issuperset(kinds):
        return True
    if kinds == {dict}:
        return TEXT.issuperset(map(type, chain.from_iterable(rows))) and JSON_TYPES.issuperset(
            map(type, chain.from_iterable(map(dict.values, rows)))
        )
    return kinds == {list} and JSON_TYPES.issuperset(map(type, chain.from_iterable(rows)))


def normalize_to_json(value: Any, title: str) -> Any:
    """One value, for example of a stream, as a JSON value; see `normalize_to_rows`.

    Raises:
        DataError: JSON cannot represent it.
    """
    try:
        return _normalize_value(value)
    except _NoJsonError as error:
        raise _unsupported_value_error([value], title, error) from None


def normalize_to_table(predictions: Any, title: str) -> pd.DataFrame:
    """Normalized predictions as a DataFrame: their own columns, those of their records, or one column `prediction`.

    Raises:
        DataError: as for `normalize_to_rows`.
    """
    import pandas as pd

    if hasattr(predictions, "columns"):
        table = predictions.reset_index(drop=True)
        return pd.DataFrame({name: _normalize_column(table[name], title) for name in table.columns}, index=table.index)
    if getattr(predictions, "ndim", 0) == 1:
        return pd.DataFrame({PREDICTION: _normalize_column(pd.Series(predictions).reset_index(drop=True), title)})
    rows = normalize_to_rows(predictions, title)
    if rows and all(type(row) is dict for row in rows):
        table = pd.DataFrame(rows)
        return pd.DataFrame({name: _unify_column_types(table[name]) for name in table.columns})
    return pd.DataFrame({PREDICTION: _unify_column_types(pd.Series(rows, dtype=None if rows else object))})


def _normalize_column(column: pd.Series[Any], title: str) -> Any:
    if column.dtype.kind in "biufmM":
        return column
    import pandas as pd

    return _unify_column_types(pd.Series(normalize_to_rows(column, title), index=column.index))


def _unify_column_types(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column with values of one type, as files need it; values of several types become their JSON text."""
    if column.dtype != object or len({type(value) for value in column.dropna()}) < 2:
        return column
    return column.map(lambda value: value if isinstance(value, str) else msgspec.json.encode(value).decode())


def _normalize_array(array: Any, title: str) -> Any:
    import numpy as np

    if not array.ndim:
        raise _no_prediction_rows_error(array, title)
    if array.dtype.names:
        import pandas as pd

        return pd.DataFrame({name: array[name] for name in array.dtype.names})
    if np.ma.is_masked(array):
        return array.tolist()
    if array.dtype.char == "g":  # Python has no longer floats
        array = array.astype("float64")
    return np.asarray(array) if isinstance(array, np.matrix) else array


def _normalize_pandas(predictions: Any, title: str) -> Any:
    import pandas as pd

    if isinstance(predictions, pd.DataFrame):
        return _rename_normalized_columns(predictions, title)
    if isinstance(predictions, (pd.Series, pd.Index)) or hasattr(predictions, "dtype"):
        return predictions if isinstance(predictions, pd.Series) else pd.Series(predictions)
    raise _no_prediction_rows_error(predictions, title)  # one value, as a Timestamp


def _rename_normalized_columns(table: pd.DataFrame, title: str) -> pd.DataFrame:
    names = [_format_normalized_name(name) for name in table.columns]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(
            f"{title} returned a table with two columns '{twice}'.", "Give each column a unique string as its name."
        )
    if all(type(name) is str for name in table.columns):
        return table
    named = table.copy(deep=False)
    named.columns = names
    return named


def _format_normalized_name(name: Any) -> str:
    """A column's name as text; several levels are joined by points."""
    return ".".join(map(str, name)) if isinstance(name, tuple) else str(_normalize_value(name))


def _normalize_arrow(predictions: Any, title: str) -> Any:
    """An Arrow or polars table or column; polars needs no pyarrow for it."""
    import pandas as pd

    if type(predictions).__name__ == "LazyFrame":
        predictions = predictions.collect()
    if type(predictions).__module__.partition(".")[0] == "polars":
        if hasattr(predictions, "get_columns"):
            return pd.DataFrame({column.name: _normalize_polars(column) for column in predictions.get_columns()})
        return predictions.to_list() if hasattr(predictions, "to_list") else _refuse_predictions(predictions, title)
    import pyarrow as pa

    from mlapp.data.frames import make_frame

    if isinstance(predictions, pa.RecordBatch):
        predictions = pa.Table.from_batches([predictions])
    if isinstance(predictions, pa.Table):
        return make_frame(predictions)
    if isinstance(predictions, (pa.Array, pa.ChunkedArray)):
        return predictions.to_pylist()
    return _refuse_predictions(predictions, title)


def _normalize_polars(column: Any) -> Any:
    import pandas as pd

    values = column.to_list()
    return pd.array(values) if column.null_count() else values  # whole numbers stay whole beside a missing one


def _list_normalized_records(table: pd.DataFrame) -> list[Any]:
    names = list(table.columns)
    columns = [_list_normalized_values(table.iloc[:, at]) for at in range(len(names))]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] if names else [{}] * len(table)


def _list_normalized_values(column: Any) -> list[Any]:
    """The values of an array or a Series, converted in chunks."""
    kind = column.dtype.kind
    if kind in "biufU" and len(column) <= MANY and _is_numpy_column(column):
        values: list[Any] = column.tolist()
        return values
    if kind in "cV" and column.dtype != object:
        raise _NoJsonError(str(column.dtype))
    if kind in "mM" and not hasattr(column, "iloc"):
        column = _normalize_times(column)
        kind = "O"
    rows = getattr(column, "iloc", column)
    values = []
    for at in range(0, len(column), MANY):
        values += rows[at : at + MANY].tolist()
    if kind in "biufU" and _is_numpy_column(column):
        return values
    return values if JSON_TYPES.issuperset(map(type, values)) else [_normalize_value(value) for value in values]


def _is_numpy_column(column: Any) -> bool:
    """Whether the values are plain NumPy values. pandas' nullable types can hold NA."""
    return hasattr(column.dtype, "itemsize") and not hasattr(column.dtype, "na_value")


def _normalize_times(array: np.ndarray[Any, Any]) -> Any:
    """An array of times or durations as objects with an ISO text: dates, Timestamps, Timedeltas."""
    import numpy as np
    import pandas as pd

    if array.dtype == "M8[D]":
        return array.astype(object)
    flat = pd.Series(array.ravel()).astype(object).to_numpy()
    return np.reshape(flat, array.shape)


def _normalize_value(value: Any) -> Any:
    """A value as JSON represents it.

    Raises:
        _NoJsonError: JSON cannot represent it.
    """
    kind = type(value)
    if kind in JSON_TYPES:
        return value
    if kind is dict:
        if JSON_TYPES.issuperset(map(type, value.values())) and all(type(key) is str for key in value):
            return value
        return _normalize_record(value)
    if kind in (list, tuple):
        return [_normalize_value(item) for item in value]
    if kind.__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, enum.Enum):
        return _normalize_value(value.value)
    plain = _normalize_scalar(value)
    return _normalize_structure(value) if plain is value else plain


def _normalize_scalar(value: Any) -> Any:
    """A scalar as JSON represents it; `value` itself if it is not a scalar."""
    library = type(value).__module__.partition(".")[0]
    if library == "numpy" and hasattr(value, "dtype") and not value.ndim:
        return _unwrap_numpy_scalar(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return format_duration(count_nanoseconds(value))
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (Decimal, numbers.Real)):
        return _normalize_number(value)
    if isinstance(value, (uuid.UUID, PurePath, ipaddress._BaseAddress)):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if library == "pandas" and type(value).__name__ in ("Period", "Interval"):
        return str(value)
    if library == "pyarrow" and hasattr(value, "as_py"):
        return _normalize_value(value.as_py())
    return value


def _normalize_number(value: Any) -> float | int:
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value)


def _unwrap_numpy_scalar(value: Any) -> Any:
    if value.dtype.kind in "cV":
        raise _NoJsonError(type(value).__name__)
    if value.dtype.kind in "mM":
        return _normalize_value(_normalize_times(value.reshape(1))[0])
    if value.dtype.kind == "f":
        return float(value)
    return _normalize_value(value.item())


def _normalize_structure(value: Any) -> Any:
    """A compound value as JSON represents it: a record, a list, a table."""
    if isinstance(value, Mapping):
        return _normalize_record(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _normalize_record({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, msgspec.Struct):
        return _normalize_record(msgspec.structs.asdict(value))
    if hasattr(value, "model_dump"):  # pydantic's
        return _normalize_value(value.model_dump(mode="json"))
    if hasattr(type(value), "__attrs_attrs__"):
        return _normalize_record({field.name: getattr(value, field.name) for field in type(value).__attrs_attrs__})
    if isinstance(value, type) or callable(value):
        raise _NoJsonError(type(value).__name__)
    if isinstance(value, Set):
        return [_normalize_value(item) for item in value]
    try:
        rows = normalize_predictions(value, "")
        return (
            _list_normalized_records(rows)
            if hasattr(rows, "columns")
            else [_normalize_value(row) for row in _list_normalized_rows(rows)]
        )
    except DataError:
        raise _NoJsonError(type(value).__name__) from None


def _list_normalized_rows(rows: Any) -> list[Any]:
    return rows if isinstance(rows, list) else _list_normalized_values(rows)


def _normalize_record(record: Mapping[Any, Any]) -> dict[str, Any]:
    found = {_format_normalized_name(name): _normalize_value(value) for name, value in record.items()}
    if len(found) < len(record):
        raise _NoJsonError("dict with two keys of one text")
    return found


def _refuse_predictions(predictions: Any, title: str) -> Any:
    raise _no_prediction_rows_error(predictions, title)


def _no_prediction_rows_error(predictions: Any, title: str) -> DataError:
    what = "single value" if getattr(predictions, "ndim", 1) == 0 else type(predictions).__name__
    return DataError(f"{title} returned a {what}.", "Return a list or an array with one prediction per row.")


def _unsupported_value_error(predictions: Any, title: str, error: _NoJsonError) -> DataError:
    """The error for a value that JSON cannot represent, with its row if known."""
    where = ""
    for row, value in enumerate(predictions if isinstance(predictions, list) else ()):
        try:
            _normalize_value(value)
        except _NoJsonError:
            where = f" in row {row}"
            break
    return DataError(
        f"{title} returned a {error}{where}, for which JSON has no form.",
        "Return numbers, texts, dates, lists, dicts, dataclasses or pydantic models.",
    )
