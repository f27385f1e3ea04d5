"""Converts the result of a predictor, of any library, to a list, an array, a Series or a DataFrame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Set
from typing import TYPE_CHECKING, Any

from mlapp.errors import DataError
from mlapp.normalization.scalars import format_column_name

if TYPE_CHECKING:
    import pandas as pd


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
    raise _no_normalized_container_error(predictions, title)


def _normalize_array(array: Any, title: str) -> Any:
    import numpy as np

    if not array.ndim:
        raise _no_normalized_container_error(array, title)
    if array.dtype.names:
        import pandas as pd

        return pd.DataFrame({name: array[name] for name in array.dtype.names})
    if np.ma.is_masked(array):
        return array.tolist()
    if array.dtype.char == "g":  # a long double, which Python cannot represent
        array = array.astype("float64")
    return np.asarray(array) if isinstance(array, np.matrix) else array


def _normalize_pandas(predictions: Any, title: str) -> Any:
    import pandas as pd

    if isinstance(predictions, pd.DataFrame):
        return _rename_container_columns(predictions, title)
    if isinstance(predictions, (pd.Series, pd.Index)) or hasattr(predictions, "dtype"):
        return predictions if isinstance(predictions, pd.Series) else pd.Series(predictions)
    raise _no_normalized_container_error(predictions, title)  # a single value, such as a Timestamp


def _rename_container_columns(table: pd.DataFrame, title: str) -> pd.DataFrame:
    names = [format_column_name(name) for name in table.columns]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(
            f"{title} returned a table with two columns '{twice}'.", "Give each column a unique string as its name."
        )
    if all(type(name) is str for name in table.columns):
        return table
    renamed = table.copy(deep=False)
    renamed.columns = names
    return renamed


def _normalize_arrow(predictions: Any, title: str) -> Any:
    """An Arrow or polars table or column. pyarrow is needed only for Arrow."""
    import pandas as pd

    if type(predictions).__name__ == "LazyFrame":
        predictions = predictions.collect()
    if type(predictions).__module__.partition(".")[0] == "polars":
        if hasattr(predictions, "get_columns"):
            return pd.DataFrame(
                {column.name: _normalize_polars_container(column) for column in predictions.get_columns()}
            )
        return (
            predictions.to_list()
            if hasattr(predictions, "to_list")
            else _refuse_prediction_container(predictions, title)
        )
    import pyarrow as pa

    from mlapp.data.frames import make_frame

    if isinstance(predictions, pa.RecordBatch):
        predictions = pa.Table.from_batches([predictions])
    if isinstance(predictions, pa.Table):
        return make_frame(predictions)
    if isinstance(predictions, (pa.Array, pa.ChunkedArray)):
        return predictions.to_pylist()
    return _refuse_prediction_container(predictions, title)


def _normalize_polars_container(column: Any) -> Any:
    import pandas as pd

    values = column.to_list()
    return pd.array(values) if column.null_count() else values  # integers stay integers beside a missing value


def _refuse_prediction_container(predictions: Any, title: str) -> Any:
    raise _no_normalized_container_error(predictions, title)


def _no_normalized_container_error(predictions: Any, title: str) -> DataError:
    kind = "single value" if getattr(predictions, "ndim", 1) == 0 else type(predictions).__name__
    return DataError(
        f"{title} returned a {kind}, not a list of predictions.",
        "Return a list or an array with one prediction per row.",
    )
