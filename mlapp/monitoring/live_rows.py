"""Selects logged rows with their truths from the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlapp.monitoring.database import Database
from mlapp.monitoring.place import Window

if TYPE_CHECKING:
    import pandas as pd


def join_truths(database: Database) -> bool:
    """Create the view `known` of the logged rows with their last truth; returns whether there is any truth.

    A hash of request and place identifies a row. The probability of a collision among 1e7 rows is 3e-6.
    """
    columns = [row[0] for row in database.execute("DESCRIBE log").fetchall()]
    parts = ['SELECT hash(request, "row") AS h, truth, received FROM truth WHERE request IS NOT NULL']
    signatures = database.execute(
        "SELECT DISTINCT array_to_string(json_keys(keys), chr(31)) FROM truth WHERE keys IS NOT NULL"
    ).fetchall()
    for (signature,) in signatures:
        names = signature.split("\x1f")
        if any(f"key.{name}" not in columns for name in names):
            continue
        conditions = " AND ".join(
            f"l.{quote_name(f'key.{name}')} = json_extract_string(t.keys, {quote_text(quote_json_path(name))})"
            for name in names
        )
        parts.append(
            'SELECT hash(l.request, l."row") AS h, t.truth, t.received FROM log l JOIN '
            f"(SELECT * FROM truth WHERE array_to_string(json_keys(keys), chr(31)) = {quote_text(signature)}) t "
            f"ON {conditions}"
        )
    database.execute(
        f"CREATE TEMP TABLE last_truth AS SELECT h, arg_max(truth, received) AS truth FROM "
        f"({' UNION ALL '.join(parts)}) GROUP BY h"
    )
    database.execute(f"CREATE TEMP VIEW known AS {make_known_query('log')}")
    count: int = database.execute("SELECT count(*) FROM last_truth").fetchone()[0]
    return count > 0


def make_known_query(log: str) -> str:
    """A query for the rows of a log with known truth.

    Args:
        log: a table or a table function.
    """
    return f'SELECT l.*, t.truth FROM {log} l JOIN last_truth t ON hash(l.request, l."row") = t.h'


def quote_name(name: str) -> str:
    """A column's name, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """A text, quoted for SQL."""
    return "'" + text.replace("'", "''") + "'"


def quote_json_path(name: str) -> str:
    """The path of an entry of a JSON object, for DuckDB."""
    return '$."' + name.replace('"', '\\"') + '"'


def read_live_rows(
    database: Database, version: str, window: Window, max_rows: int, *, with_truth: bool = True
) -> tuple[pd.DataFrame, int]:
    """Logged rows of one version and window, and their number.

    Of more than `max_rows` rows, those with the smallest hashes are selected. If rows have different weights, a row is
    selected with a probability proportional to its weight.
    """
    log = database.log_of(version, window)
    source = make_known_query(log) if with_truth else f"SELECT * FROM {log} l"
    where = "l.version = ? AND epoch(l.time) >= ? AND epoch(l.time) < ?"
    values = [version, window.since, window.until]
    count, lightest, heaviest = database.execute(
        f"SELECT count(*), min(weight), max(weight) FROM ({source} WHERE {where})", values
    ).fetchone()
    chance = ""
    if count:
        share = min(1.0, max_rows / count)
        if share < 1 or lightest != heaviest:
            chance = f' AND hash(l.request, l."row") / 18446744073709551616.0 < {share} * l.weight / {heaviest}'
    rows = database.execute(f"{source} WHERE {where}{chance}", values).df()
    return rows, int(count)
