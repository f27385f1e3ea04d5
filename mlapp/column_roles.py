"""Detects columns of a user's table that pandas reads wrongly by default: codes, dates and identifiers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

DATE_FORMATS = tuple(
    f"{date}{time}"
    for date in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d")
    for time in ("", " %H:%M", " %H:%M:%S")
)
"""Formats of dates other than ISO 8601. The day comes before the month if both fit, as in most countries."""
IDENTIFIER = re.compile(r"(^|[_\s-])(id|uuid|guid|key|index|idx)$|[a-z](Id|ID)$|^(Id|ID|UUID)$")
FEWEST_ROWS = 20
"""Minimum rows for which a column of distinct values counts as an identifier."""
CODE = r"0\d+"
"""A number that begins with 0, such as a postal code, is a code: its zeros count."""


def find_code_columns(texts: pd.DataFrame) -> list[str]:
    """The columns of codes: all values are digits, and some begin with 0.

    Args:
        texts: the table, each value as its text in the file.
    """
    return [
        str(name)
        for name in texts.columns
        if len(values := texts[name].dropna())
        and values.str.fullmatch(r"\d+").all()
        and values.str.fullmatch(CODE).any()
    ]


def find_date_formats(texts: pd.DataFrame) -> dict[str, str]:
    """The columns of dates in another form than ISO 8601, each with its format."""
    formats = {}
    for name in texts.columns:
        values = texts[name].dropna()
        if not len(values) or not values.str.match(r"\d{1,4}[/.-]\d{1,2}[/.-]\d{2,4}( \d{1,2}:\d{2}(:\d{2})?)?$").all():
            continue
        date_format = next((candidate for candidate in DATE_FORMATS if _matches_date_format(values, candidate)), None)
        if date_format is not None:
            formats[str(name)] = date_format
    return formats


def find_identifier_columns(table: pd.DataFrame, target: str) -> dict[str, str]:
    """The columns that only identify rows, each with the reason. A model would memorize their values."""
    reasons = {}
    for name in map(str, table.columns):
        if name == target:
            continue
        if re.fullmatch(r"Unnamed: \d+", name):
            reasons[name] = "without a name, as the row numbers that pandas writes"
        elif _is_identifier_column(name, table[name]):
            reasons[name] = "different in each row"
    return reasons


def infer_column_read_options(texts: pd.DataFrame) -> Mapping[str, Any]:
    """The options of `pandas.read_csv` for the codes and dates of a table of texts."""
    codes, formats = find_code_columns(texts), find_date_formats(texts)
    options: dict[str, Any] = {}
    if codes:
        options["dtype"] = dict.fromkeys(codes, "str")
    if formats:
        options["date_format"] = formats
    return options


def _is_identifier_column(name: str, column: pd.Series[Any]) -> bool:
    rows = len(column)
    if rows < FEWEST_ROWS or column.dtype.kind in "fMb" or column.isna().any() or column.nunique() < rows:
        return False
    if IDENTIFIER.search(name):
        return True
    if column.dtype.kind not in "iu":
        return not column.astype(str).str.contains(r"\s").any()  # texts of several words are content, not identifiers
    return int(column.max()) - int(column.min()) == rows - 1  # consecutive numbers


def _matches_date_format(values: pd.Series[Any], form: str) -> bool:
    import pandas as pd

    return bool(pd.to_datetime(values, format=form, errors="coerce").notna().all())
