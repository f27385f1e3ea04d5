"""The default loader, splitter and parser."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from mlapp.errors import DataError, list_names, suggest_nearest

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

log = logging.getLogger("mlapp")
MAX_CLASSES = 100
"""A numeric target with more distinct values is treated as a quantity, and the split is not stratified."""
MAX_LABELS = 10
"""A target of integers with more distinct values can be a quantity, whose values may occur once."""
SHOWN_CLASSES = 5
"""Classes with one row that a warning names."""


def load_default_table(data: Any) -> pd.DataFrame:
    """Convert pandas, polars, Arrow, a list of dicts, a dict of columns, JSON text, or an iterator of these to a table.

    Raises:
        DataError: the data has another type.
    """
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, (str, bytes)):
        data = _parse_default_json(data)
    if isinstance(data, Iterator):
        items = list(data)
        if items and all(_is_default_row(part) for part in items):
            return pd.DataFrame(items)
        parts = [load_default_table(part) for part in items]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if hasattr(data, "to_pandas"):
        is_arrow = type(data).__module__.partition(".")[0] == "pyarrow"
        table: pd.DataFrame = data.to_pandas(split_blocks=True) if is_arrow else data.to_pandas()
        return table
    if isinstance(data, Mapping):
        if _is_default_row(data):
            raise DataError(
                "The data is a dict of single values.", "Return a list of such dicts, or a dict of columns."
            )
        try:
            return pd.DataFrame({str(name): values for name, values in data.items()})
        except ValueError as error:
            raise DataError(
                f"The data is a dict that is not a table: {error}", "Give every column the same number of values."
            ) from None
    if isinstance(data, (list, tuple)) and all(isinstance(row, Mapping) for row in data):
        return pd.DataFrame(list(data))
    raise DataError(
        f"The data is not a table: {type(data).__name__}.",
        "Return a DataFrame, an Arrow or polars table, a list of dicts or JSON text, or write an @app.data_loader.",
    )


def _is_default_row(data: Any) -> bool:
    """Whether data is one row: a dict of single values."""
    return isinstance(data, Mapping) and bool(data) and all(_is_default_cell(value) for value in data.values())


def _is_default_cell(value: Any) -> bool:
    return value is None or isinstance(value, (str, bytes, int, float, Decimal, date)) or getattr(value, "ndim", 1) == 0


def split_default_table(
    table: pd.DataFrame,
    targets: tuple[str, ...],
    *,
    test_size: float = 0.2,
    shuffle: bool = True,
    random_state: int = 0,
) -> dict[str, pd.DataFrame]:
    """Seeded `train` and `test` splits; stratified for a single target of classes.

    Args:
        test_size: share of the rows for `test`, at least 0 (no test split) and less than 1.
        shuffle: select the rows at random. If False, the last rows are the test split.
        random_state: the seed.
    """
    import numpy as np

    if not 0 <= test_size < 1:
        raise DataError(
            f"test_size is {test_size}; it must be a fraction of the rows.",
            "Give it as -p test_size=0.2, from 0 to below 1.",
        )
    rows = len(table)
    test_rows = min(round(rows * test_size), rows - 1)  # at least one row to train on
    if test_rows < 1:
        return {"train": table}
    if not shuffle:
        return {"train": table.iloc[:-test_rows], "test": table.iloc[-test_rows:]}
    random = np.random.default_rng(random_state)
    is_test = np.zeros(rows, dtype=bool)
    classes = encode_split_classes(table, targets)
    if classes is None:
        _warn_of_single_rows(table, targets)
    is_test[_draw_default_test_rows(classes, rows, test_rows, random)] = True
    return {"train": table.iloc[np.flatnonzero(~is_test)], "test": table.iloc[np.flatnonzero(is_test)]}


def parse_default_table(
    table: pd.DataFrame, features: tuple[str, ...] | None, target: str | tuple[str, ...] | None
) -> tuple[Any, Any]:
    """Features and target by the columns of `App`; the target is None for an app without one.

    Raises:
        DataError: the table lacks one of the columns.
    """
    targets = () if target is None else (target,) if isinstance(target, str) else target
    for role, names in (("target", targets), ("feature", features or ())):
        for name in names:
            if name not in table.columns:
                raise DataError(
                    f"The data has no {role} column '{name}'.{suggest_nearest(name, map(str, table.columns))}",
                    f"It has: {list_names(table.columns)}. Change the App's {role} or the data_reader.",
                )
    used = table[list(features)] if features is not None else table.drop(columns=list(targets)) if targets else table
    if target is None:
        return used, None
    return used, table[target] if isinstance(target, str) else table[list(target)]


def convert_decimals_to_floats(data: Any) -> Any:
    """Convert exact decimals in a table or column to floats, which is what a model receives in serving."""
    import pandas as pd

    from mlapp.schema.infer import is_decimal_column

    if isinstance(data, pd.Series):
        return data.astype("float64") if is_decimal_column(data) else data
    if not isinstance(data, pd.DataFrame):
        return data
    # Filter by dtype first: accessing 10,000 columns one by one takes seconds.
    others = [at for at, dtype in enumerate(data.dtypes) if dtype.kind not in "biufcmM"]
    decimals = [at for at in others if is_decimal_column(data.iloc[:, at])]
    if not decimals:
        return data
    columns = {
        at: data.iloc[:, at].astype("float64") if at in decimals else data.iloc[:, at] for at in range(data.shape[1])
    }
    converted = pd.DataFrame(columns, index=data.index, copy=False)
    converted.columns = data.columns
    return converted


def _parse_default_json(text: str | bytes) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise DataError(
            f"The data is a string that is not JSON: {error}", "Return a table, or write an @app.data_loader."
        ) from None


def encode_split_classes(table: pd.DataFrame, targets: tuple[str, ...]) -> np.ndarray[Any, Any] | None:
    """Each row's class as a number; None if the target is not a class, or a class has only one row."""
    import numpy as np

    from mlapp.schema.infer import is_decimal_column

    if len(targets) != 1 or targets[0] not in table.columns:
        return None
    target = table[targets[0]]
    max_classes = min(MAX_CLASSES, len(table) // 2)
    # Check the first rows before all of them: counting all distinct numbers takes more memory than the column.
    if (
        target.dtype.kind == "f"
        or is_decimal_column(target)
        or any(part.nunique(dropna=False) > max_classes for part in (target.head(10 * MAX_CLASSES), target))
    ):
        return None
    codes = target.astype("category").cat.codes.to_numpy()
    return None if np.unique(codes, return_counts=True)[1].min() < 2 else codes


def _warn_of_single_rows(table: pd.DataFrame, targets: tuple[str, ...]) -> None:
    """Warn about classes with one row: a model is either not trained or not tested on them."""
    if len(targets) != 1 or targets[0] not in table.columns:
        return
    target = table[targets[0]]
    is_number = target.dtype.kind in "iufc"
    if target.dtype.kind in "fc" or target.nunique() > (MAX_LABELS if is_number else min(MAX_CLASSES, len(table) // 2)):
        return
    counts = target.value_counts()
    single = [f"'{value!s:.40}'" for value in counts.index[counts == 1]]
    if single:
        log.warning(
            "%s of the target '%s' %s one row, so the split is not stratified and a model cannot be trained and tested "
            "on it. Add rows, or leave it out.",
            f"The class {single[0]}" if len(single) == 1 else f"The classes {', '.join(single[:SHOWN_CLASSES])}",
            targets[0],
            "has" if len(single) == 1 else "have",
        )


def _draw_default_test_rows(
    classes: np.ndarray[Any, Any] | None, rows: int, test_rows: int, random: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Select `test_rows` rows at random, stratified if there are classes."""
    return (
        random.permutation(rows)[:test_rows]
        if classes is None
        else _draw_stratified_test_rows(classes, test_rows, random)
    )


def _draw_stratified_test_rows(
    classes: np.ndarray[Any, Any], test_rows: int, random: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Select `test_rows` rows so that each class keeps its share; leftover rows go to the largest remainders."""
    import numpy as np

    order = random.permutation(len(classes))
    labels, counts = np.unique(classes, return_counts=True)
    shares = counts * (test_rows / len(classes))
    quota = np.floor(shares).astype(int)
    for at in np.argsort(quota - shares, kind="stable")[: test_rows - quota.sum()]:
        quota[at] += 1
    shuffled_classes = classes[order]
    return np.concatenate([order[shuffled_classes == label][:rows] for label, rows in zip(labels, quota, strict=True)])
