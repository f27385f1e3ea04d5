"""SQL: a query's rows as a DataFrame, from PostgreSQL, MySQL, MariaDB, SQLite, DuckDB, or any SQLAlchemy dialect.

    app.data_reader.sql("postgresql://me:${PASSWORD}@db/shop", "SELECT * FROM orders WHERE day >= :since", since=date)

or, inside your own reader:

    @app.data_reader
    def orders(since: date) -> pd.DataFrame:
        return sql.read("${DB_URL}", "SELECT * FROM orders WHERE day >= :since", since=since)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, overload

from mlapp.data import reconnect
from mlapp.data.frames import Types
from mlapp.data.secrets import Address, expand_secrets_in_address, redact_secrets
from mlapp.data.source import Reader, make_streaming_reader
from mlapp.data.sql import duckdb_engine, postgres_engine, sqlalchemy_engine
from mlapp.data.sql.query import find_query_parameters
from mlapp.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

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
        url: the database URL, in SQLAlchemy's format; `${NAME}` is taken from the environment.
        query: SQL with `:name` for each parameter. A list works as `IN :ids`.
        chunks: yield DataFrames of this number of rows, for data that is larger than memory.
        types: pandas types for single columns, such as `{"city": "category"}`.
        parameters: the values, which are bound by the database and never inserted into the query text.

    If the connection breaks, the read is repeated up to three times. A stream cannot be repeated after its first part;
    then the error reports its progress.

    Raises:
        DataError: the database is unreachable or refuses the query; the error points at the position in the SQL.
        UsageError: a parameter is missing or unknown.
        MissingExtraError: the packages of the extra `sql` are not installed.
    """
    address = expand_secrets_in_address(url)
    stream = _choose_sql_engine(address)
    return reconnect.read_with_reconnects(
        address.display_name, lambda: stream(address, query, parameters), chunks, types
    )


def source(url: str, query: str, *, chunks: int | None = None, types: Types | None = None, **parameters: Any) -> Reader:
    """The source behind `app.data_reader.sql`: the query's parameters are the reader's.

    Raises:
        DeclarationError: a parameter of the query has neither a type nor a value, or is not in the query.
    """
    options: dict[str, Any] = {"types": types}
    return make_streaming_reader(
        "sql",
        f"The rows of `{' '.join(query.split())}` from {redact_secrets(url)}.",
        lambda values, rows: read(url, query, chunks=rows, **options, **values),
        parameters=parameters,
        placeholders=find_query_parameters(query, backslashes=url.startswith(("mysql", "mariadb"))),
        where="the query",
        chunks=chunks,
    )


def _choose_sql_engine(address: Address) -> Engine:
    dialect, separator, _ = address.value.partition("://")
    if not separator:
        raise UsageError(
            f"'{address}' is not the address of a database.",
            "Write it as postgresql://user:${DB_PASSWORD}@host:port/database.",
        )
    match dialect.split("+")[0]:
        case "postgresql" | "postgres":
            return postgres_engine.stream_postgres
        case "duckdb":
            return duckdb_engine.stream_duckdb
        case _:
            return sqlalchemy_engine.stream_sqlalchemy
