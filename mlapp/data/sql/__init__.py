"""SQL: a query's rows as a DataFrame, from PostgreSQL, MySQL, MariaDB, SQLite, DuckDB, or any SQLAlchemy dialect.

    app.data_reader.sql("postgresql://me:${PASSWORD}@db/shop", "SELECT * FROM orders WHERE day >= :since", since=date)

or, inside a reader of your own:

    @app.data_reader
    def orders(since: date) -> pd.DataFrame:
        return sql.read("${DB_URL}", "SELECT * FROM orders WHERE day >= :since", since=since)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, overload

from mlapp.data.frames import Types, check_rows, counted, frame, frames, joined
from mlapp.data.secrets import Address, expand, redact
from mlapp.data.source import Reader, declared, reader
from mlapp.data.sql import alchemy, duck, postgres
from mlapp.data.sql.errors import LostConnectionError, UnreachableError
from mlapp.data.sql.query import names
from mlapp.errors import DataError, DeclarationError, UsageError, nearest

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PAUSES = (0.2, 1.0, 3.0)
"""Seconds before each further attempt at a read whose connection broke."""

Engine = Callable[[Address, str, dict[str, Any]], "Iterator[pa.Table]"]


@overload
def read(
    url: str, query: str, *, chunks: None = None, types: Types | None = None, **parameters: Any
) -> pd.DataFrame: ...
@overload
def read(
    url: str, query: str, *, chunks: int, types: Types | None = None, **parameters: Any
) -> Iterator[pd.DataFrame]: ...
def read(
    url: str, query: str, *, chunks: int | None = None, types: Types | None = None, **parameters: Any
) -> pd.DataFrame | Iterator[pd.DataFrame]:
    """Read a query's rows.

    Args:
        url: the database, as SQLAlchemy writes it; `${NAME}` is taken from the environment.
        query: SQL with `:name` for each parameter. A list works as `IN :ids`.
        chunks: give DataFrames of so many rows one after another, for what is larger than memory.
        types: pandas types for single columns, as `{"city": "category"}`.
        parameters: the values, bound by the database and never pasted into the query.

    A read whose connection breaks is made again, up to three times. A stream cannot be once its first part is out;
    then the error says how far it came.

    Raises:
        DataError: the database cannot be reached or refuses the query; the error points at the place in the SQL.
        UsageError: a parameter is missing or unknown.
        MissingExtraError: the packages of the extra `sql` are not installed.
    """
    check_rows(chunks)
    parts = _parts(expand(url), query, chunks, types, parameters)
    return next(parts) if chunks is None else parts


def source(url: str, query: str, *, chunks: int | None = None, types: Types | None = None, **parameters: Any) -> Reader:
    """The source behind `app.data_reader.sql`: the query's parameters are the reader's.

    Raises:
        DeclarationError: a parameter of the query has neither a type nor a value, or the query has it not.
    """
    check_rows(chunks)
    wanted = names(query, backslashes=url.startswith(("mysql", "mariadb")))
    for name in wanted:
        if name not in parameters:
            raise DeclarationError(
                f"The query has the parameter :{name}, and nothing says its type.",
                f"Add {name}=date (or int, str, …) to require it, or {name}=<a value> as its default.",
            )
    for name in parameters:
        if name not in wanted:
            raise DeclarationError(
                f"'{name}' is not a parameter of the query.{nearest(name, wanted)}", f"Write :{name} into the query."
            )
    says = f"The rows of `{' '.join(query.split())}` from {redact(url)}."
    return reader(
        "sql", says, lambda values: read(url, query, chunks=chunks, types=types, **values), declared(parameters)
    )


def _parts(
    address: Address, query: str, chunks: int | None, types: Types | None, parameters: dict[str, Any]
) -> Iterator[pd.DataFrame]:
    """The query's rows in parts of `chunks`, or all in one; read again from the start while no part is out."""
    stream = _engine(address)
    given = 0
    for attempt, pause in enumerate((*PAUSES, None), 1):
        try:
            tables = counted(stream(address, query, parameters))
            for part in [frame(joined(tables), types)] if chunks is None else frames(tables, chunks, types):
                yield part
                given += len(part)
            return
        except (LostConnectionError, UnreachableError) as error:
            if given:
                raise DataError(
                    f"The connection to {address} broke after {given:,} rows: {error}",
                    "Start again, or read in pieces that a parameter of the query chooses.",
                ) from None
            if pause is None:
                raise DataError(
                    f"The connection to {address} broke {attempt} times: {error}",
                    "Try again later, or read less at once: chunks=50_000.",
                ) from None
            if attempt == 1 and isinstance(error, UnreachableError):
                raise
            time.sleep(pause)


def _engine(address: Address) -> Engine:
    dialect, separator, _ = address.value.partition("://")
    if not separator:
        raise UsageError(
            f"'{address}' is not the address of a database.",
            "Write it as postgresql://user:${DB_PASSWORD}@host:port/database.",
        )
    match dialect.split("+")[0]:
        case "postgresql" | "postgres":
            return postgres.stream
        case "duckdb":
            return duck.stream
        case _:
            return alchemy.stream
