"""Builds the columns of a baseline from training data."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mlapp.baseline.baseline import Column
from mlapp.baseline.redaction import NO_RULES, find_redaction_step, is_redacted_column
from mlapp.schema.feature_containers import count_feature_rows, take_feature_rows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

MOST_ROWS = 100_000
"""Maximum number of rows; a larger table is sampled with a fixed seed."""
MOST_BINS = 200
CELLS = MOST_BINS * 64
"""Maximum bins of all columns together: a wide table has fewer bins per column."""
FEWEST_BINS = 16
MOST_COLUMNS = 512
"""A table or array with more columns (an image, an embedding) has no bins."""
UNIQUE = 0.5
"""Share of distinct values above which a column of texts holds names or sentences, and is not counted by value."""
NUMBERS = frozenset((int, float, bool, type(None)))
"""Types that NumPy converts to floats."""
MOST_CLASSES = 1_000
LONGEST = 64
"""Maximum number of characters of a category."""


def draw_baseline_rows(features: Any, max_rows: int = MOST_ROWS) -> Any:
    """The features, or a sample of them if they have too many rows.

    The sample is drawn with a fixed seed: it has the same rows of two tables of the same length.
    """
    import numpy as np

    rows = count_feature_rows(features) or 0
    if rows <= max_rows:
        return features
    return take_feature_rows(features, np.sort(np.random.default_rng(0).choice(rows, max_rows, replace=False)))


def build_baseline_columns(features: Any, rules: Mapping[str, str] = NO_RULES) -> list[Column]:
    """The columns of a table or of an array of numbers; an empty list for anything else.

    Args:
        features: a DataFrame, or an array with one number or one row of numbers per row.
        rules: column → rule for its stored values, see `mlapp.baseline.redaction`.
    """
    import pandas as pd

    features = draw_baseline_rows(features)
    if isinstance(features, pd.Series):
        features = features.to_frame()
    table = features if isinstance(features, pd.DataFrame) else _make_baseline_frame(features)
    if table is None or table.shape[1] > MOST_COLUMNS or not len(table):
        return []
    max_bins = min(MOST_BINS, max(FEWEST_BINS, CELLS // max(1, table.shape[1])))
    return [
        summarize_baseline_column(str(name), table.iloc[:, at], max_bins, rules)
        for at, name in enumerate(table.columns)
    ]


def describe_unwatched_features(columns: int) -> str | None:
    """A warning if a table or array with so many columns has no bins."""
    if columns <= MOST_COLUMNS:
        return None
    return (
        f"The drift of the {columns:,} features is not monitored, because they are more than {MOST_COLUMNS}. "
        "Predictions, refused inputs and quality are."
    )


def summarize_baseline_column(
    name: str, values: pd.Series[Any], max_bins: int = MOST_BINS, rules: Mapping[str, str] = NO_RULES
) -> Column:
    """The distribution of one column.

    Args:
        max_bins: maximum number of bins or category values.
        rules: column → rule for its stored values.
    """
    from pandas.api import types

    rows, missing = len(values), int(values.isna().sum())
    if is_redacted_column(rules, name):
        return Column(name=name, kind="text", rows=rows, missing=missing)
    is_bool = types.is_bool_dtype(values.dtype)
    is_number = types.is_numeric_dtype(values.dtype) or types.is_datetime64_any_dtype(values.dtype)
    if not is_bool and (is_number or _is_baseline_duration(values.dtype)):
        return _summarize_baseline_numbers(
            name, convert_baseline_numbers(values), max_bins, find_redaction_step(rules, name)
        )
    return summarize_baseline_categories(name, to_category_texts(values), max_bins)


def convert_baseline_numbers(values: Any) -> NDArray[np.float64]:
    """Values as float64: numbers, dates as seconds since 1970, durations as seconds; anything else as NaN."""
    import numpy as np
    import pandas as pd
    from pandas.api import types

    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        return values.astype(np.float64, copy=False)
    if isinstance(values, list) and set(map(type, values)) <= NUMBERS:
        with contextlib.suppress(OverflowError):
            return np.array(values, dtype=np.float64)
    values = values if isinstance(values, pd.Series) else pd.Series(values)
    if types.is_datetime64_any_dtype(values.dtype):
        if str(values.dtype).startswith("date32"):  # Arrow's dates support neither `tz` nor NumPy's missing value
            values = pd.Series(pd.to_datetime(values.astype(object)))
        stamps = values.dt.tz_localize(None) if getattr(values.dt, "tz", None) is not None else values
        seconds = stamps.to_numpy(dtype="datetime64[ns]").astype(np.int64) / 1e9
        return np.where(values.isna(), np.nan, seconds)
    if _is_baseline_duration(values.dtype):
        values = values.astype("timedelta64[ns]").dt.total_seconds()
    elif not types.is_numeric_dtype(values.dtype):
        values = pd.to_numeric(values, errors="coerce")
    numbers: NDArray[np.float64] = values.to_numpy(dtype="float64", na_value=np.nan)
    return numbers


def _is_baseline_duration(dtype: Any) -> bool:
    return str(dtype).startswith(("timedelta64[", "duration["))


def to_category_texts(values: Any) -> list[str | None]:
    """Each value as a category's text: 1 and 1.0 have one text, True is `true`, a missing value is None."""
    items = values.tolist() if hasattr(values, "tolist") else list(values)
    return [to_category_text(value) for value in items]


def count_category_texts(values: Any) -> dict[str | None, int]:
    """The number of occurrences of each text of `to_category_texts`."""
    import numpy as np

    if str(getattr(values, "dtype", "")) == "category":
        codes = values.cat.codes.to_numpy()
        texts: list[str | None] = [*to_category_texts(values.cat.categories), None]  # the code of a missing value is -1
        pairs = zip(texts, np.roll(np.bincount(codes + 1, minlength=len(texts)), -1).tolist(), strict=True)
        return {text: count for text, count in pairs if count}
    items = values.tolist() if hasattr(values, "tolist") else list(values)
    if not _can_count_as_texts(set(map(type, items))):
        return dict(Counter(map(to_category_text, items)))
    counts: dict[str | None, int] = {}
    for value, count in Counter(items).items():
        text = to_category_text(value)
        counts[text] = counts.get(text, 0) + count
    return counts


def count_missing_values(values: Any) -> int:
    """The number of missing values."""
    import pandas as pd

    return int(pd.Series(values, dtype=None if hasattr(values, "dtype") else object).isna().sum())


def _can_count_as_texts(kinds: set[type]) -> bool:
    """Whether equal values of these types have the same text, unlike 1 and True."""
    numbers = kinds - {str, type(None)}
    return numbers <= {int, float} or numbers == {bool}


def to_category_text(value: Any) -> str | None:
    """One value as a category's text; for a list, array or record the name of its type."""
    if isinstance(value, str):
        return value
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "__len__"):
        return type(value).__name__
    if value != value:
        return None
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def summarize_baseline_categories(name: str, texts: list[str | None], max_values: int = MOST_BINS) -> Column:
    """The counts of each value; a column of unique or long texts has none."""
    import numpy as np
    import pandas as pd

    rows = len(texts)
    present = [text for text in texts if text is not None]
    missing = rows - len(present)
    if not present:
        return Column(name=name, kind="category", rows=rows, missing=missing)
    codes, uniques = pd.factorize(np.asarray(present, dtype=object))
    counts = np.bincount(codes)
    is_unique = len(uniques) > 2 and len(uniques) > UNIQUE * len(present) and rows >= 4
    if is_unique or len(uniques) > 10 * max_values or max(map(len, uniques)) > LONGEST:
        return Column(name=name, kind="text", rows=rows, missing=missing)
    order = sorted(range(len(uniques)), key=lambda at: (-counts[at], uniques[at]))
    return Column(
        name=name,
        kind="category",
        rows=rows,
        missing=missing,
        values=[str(uniques[at]) for at in order[:max_values]],
        counts=[int(counts[at]) for at in order[:max_values]],
        others=int(sum(counts[at] for at in order[max_values:])),
        singles=int((counts == 1).sum()),
    )


def find_target_json_type(target: Any) -> str | None:
    """The JSON type of a target's values; None for several columns or fields, or another type."""
    from mlapp.schema import infer_schema

    if target is None or getattr(target, "ndim", 1) > 1 or getattr(getattr(target, "dtype", None), "names", None):
        return None
    import numpy as np
    import pandas as pd

    is_column = isinstance(target, (pd.Series, np.ndarray))
    values = pd.Series(target) if is_column else pd.Series(list(_list_baseline_values(target)))
    field = infer_schema(values.rename("target").to_frame()).fields[0]
    if field.type in ("integer", "number", "boolean", "string"):
        return field.type
    if field.type == "category" and field.categories:
        kinds = {type(value) for value in field.categories}
        names = {str: "string", int: "integer", float: "number", bool: "boolean"}
        return names.get(kinds.pop()) if len(kinds) == 1 else None
    return None


def list_baseline_classes(target: Any, name: str | None, rules: Mapping[str, str] = NO_RULES) -> list[str]:
    """The values of a target that can be a class, as texts; empty for numbers, private values, and very many.

    Args:
        name: of the target's column.
    """
    if is_redacted_column(rules, name or "") or find_target_json_type(target) not in ("integer", "boolean", "string"):
        return []
    counts = count_category_texts(target)
    return sorted(text for text in counts if text is not None) if len(counts) <= MOST_CLASSES else []


def _list_baseline_values(values: Any) -> Iterable[Any]:
    items: Iterable[Any] = values.tolist() if hasattr(values, "tolist") else values
    return items


def _summarize_baseline_numbers(
    name: str, values: NDArray[np.float64], max_bins: int, step: float | None = None
) -> Column:
    import numpy as np

    from mlapp.baseline.bins import ORDER, compute_bin_ends, encode_bins, make_bins

    values = values if step is None else np.round(values / step) * step
    finite = values[np.isfinite(values)]
    rows, missing = len(values), int(np.isnan(values).sum())
    if not len(finite):
        return Column(name=name, kind="number", rows=rows, missing=missing)
    # The center is a value of the column, so that each value of a column with few distinct values has its own bin.
    center = float(np.partition(finite, (len(finite) - 1) // 2)[(len(finite) - 1) // 2])
    ordered = ORDER[encode_bins(finite, center)].astype(np.int64)
    keys, counts = make_bins(ordered, max_bins)
    return Column(
        name=name,
        kind="number",
        rows=rows,
        missing=missing,
        center=center,
        low=int(ordered.min()),
        keys=keys,
        edges=compute_bin_ends(np.asarray(keys), center),
        minimum=float(finite.min()),
        maximum=float(finite.max()),
        counts=counts,
        step=step,
    )


def _make_baseline_frame(features: Any) -> pd.DataFrame | None:
    import numpy as np
    import pandas as pd

    if isinstance(features, Mapping):
        parts = {str(name): part for name, part in features.items() if getattr(part, "ndim", 0) == 1}
        return pd.DataFrame(parts) if parts else None
    if not isinstance(features, np.ndarray) or features.dtype.kind not in "biuf" or features.ndim not in (1, 2):
        return None
    values = features.reshape(len(features), -1)
    return pd.DataFrame(values, columns=[str(at) for at in range(values.shape[1])], copy=False)
