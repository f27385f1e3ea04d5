"""pandas' dtypes by their names, and its missing values."""

from __future__ import annotations

import re
from typing import Any

SPARSE = re.compile(r"Sparse\[(?P<kind>(?:float|u?int)\d+|bool), (?P<fill>[\w.+-]+)\]")


def parse_pandas_dtype(name: str) -> Any:
    """The dtype with a name from `str(dtype)`."""
    import numpy as np
    import pandas as pd

    if name == "string[pyarrow]":
        import pyarrow as pa

        return pd.ArrowDtype(pa.string())
    if (sparse := SPARSE.fullmatch(name)) is not None:  # pandas parses only the default fill value of each type
        kind: Any = np.dtype(sparse["kind"])
        fill = sparse["fill"] == "True" if kind.kind == "b" else kind.type(sparse["fill"]).item()
        return pd.SparseDtype(kind, fill)
    return pd.api.types.pandas_dtype(name)


def is_missing_value(value: Any) -> bool:
    """Whether a value is None, NaN or one of pandas' missing values."""
    is_nan = isinstance(value, float) and value != value
    return is_nan or value is None or type(value).__name__ in ("NAType", "NaTType")
