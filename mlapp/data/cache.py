"""Caches a reader's result in a file, which the next read with the same parameters uses.

    @app.data_reader
    @cached(hours=24)
    def orders(since: date) -> pd.DataFrame:
        return sql.read("${DB_URL}", "SELECT * FROM orders WHERE day >= :since", since=since)

    app.data_reader(cached(hours=24)(sql.source("${DB_URL}", "SELECT * FROM orders")))

Caching is opt-in. The key consists of the reader's code, its parameters and the values of the variables `${NAME}` that
it uses, so that a different query, day or database has a different key. The name of a cached file contains the data's
fingerprint; if the content does not match it, the data is read again.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mlapp import env_vars
from mlapp.data.export import export_table
from mlapp.data.fingerprint import fingerprint_table
from mlapp.errors import DataError, MissingExtraError

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = Path(".mlapp/cache/data")
"""Folder of cached reads, in the project's folder. Can be deleted at any time."""


def cached(*, hours: float | None = None, folder: str | os.PathLike[str] = FOLDER) -> Callable[[F], F]:
    """Cache the DataFrame that a reader returns.

    Args:
        hours: how long a cached read is valid; by default, until it is deleted.
        folder: the folder of the cache.

    The decorated reader raises MissingExtraError without pyarrow, and DataError if it does not return a DataFrame.
    """

    def decorate_reader(read: F) -> F:
        @functools.wraps(read)
        def read_cached(*args: Any, **values: Any) -> Any:
            return _read_through_cache(read, args, values, Path(folder), hours)

        read_cached.__signature__ = inspect.signature(read)  # type: ignore[attr-defined]  # sources set it, too
        return read_cached  # type: ignore[return-value]

    return decorate_reader


def _read_through_cache(
    read: Callable[..., Any], args: tuple[Any, ...], values: dict[str, Any], folder: Path, hours: float | None
) -> Any:
    import pandas as pd

    try:
        import pyarrow as pa  # noqa: F401
    except ImportError:
        raise MissingExtraError("Caching reads", "parquet") from None
    bound = inspect.signature(read).bind(*args, **values)
    bound.apply_defaults()
    name = f"{getattr(read, '__name__', 'read')}-{_make_cache_key(read, bound.arguments)}"
    for file in sorted(folder.glob(f"{name}-*.parquet")):
        table = _read_cached_table(file, hours)
        if table is not None:
            return table
    table = read(*args, **values)
    if not isinstance(table, pd.DataFrame):
        raise DataError(
            f"{name.partition('-')[0]} returned a {type(table).__name__}, which cannot be cached.",
            "Return a DataFrame, or leave @cached out.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*.parquet"):
        old.unlink(missing_ok=True)
    export_table(table, folder / f"{name}-{fingerprint_table(table)}.parquet")
    return table


def _make_cache_key(read: Callable[..., Any], arguments: dict[str, Any]) -> str:
    """Hash of what determines the result: the reader's code, its parameters, and the variables that it uses."""
    try:
        code = inspect.getsource(read)
    except (OSError, TypeError):
        code = ""
    # A source's function has the same code for every query, but a different docstring.
    code_and_docstring = f"{code}\n{read.__doc__ or ''}"
    variables = {name: os.environ.get(name) for name in sorted(set(env_vars.REFERENCE.findall(code_and_docstring)))}
    return hashlib.sha256(repr((code_and_docstring, sorted(arguments.items()), variables)).encode()).hexdigest()[:16]


def _read_cached_table(file: Path, hours: float | None) -> Any:
    """The table in a cached file; None if it is too old, or does not match its fingerprint."""
    import pandas as pd

    try:
        if hours is not None and time.time() - file.stat().st_mtime > hours * 3600:
            return None
        table = pd.read_parquet(file)
    except (OSError, ValueError):
        return None
    return table if file.stem.endswith(fingerprint_table(table)) else None
