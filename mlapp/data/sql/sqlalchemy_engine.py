"""Every other database through SQLAlchemy: MySQL and MariaDB, SQLite, and any whose dialect is installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlapp.data.frames import make_array
from mlapp.data.reconnect import LostConnectionError
from mlapp.data.secrets import Address
from mlapp.data.sql.errors import refused_query_error, unreachable_database_error
from mlapp.data.sql.query import bind_parameters
from mlapp.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Connection, Engine

FETCHED = 20_000
"""Rows fetched at once."""

_DRIVERS = {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}


def stream_sqlalchemy(address: Address, query: str, values: Mapping[str, Any]) -> Iterator[pa.Table]:
    """Read the query's rows as Arrow tables, as they come; at least one table, if an empty one.

    Raises:
        DataError: not an address, no driver for it, no connection, or a query that the database refuses.
        LostConnectionError: the connection broke.
    """
    try:
        import pyarrow as pa
        import sqlalchemy
    except ImportError:
        raise MissingExtraError("Reading a database", "sql") from None
    engine = _create_sqlalchemy_engine(address)
    bound = bind_parameters(
        query,
        values,
        lambda _, name: f":{name}",
        rest=lambda text: text.replace(":", r"\:"),  # only ours are parameters to SQLAlchemy
        backslashes=engine.dialect.name in ("mysql", "mariadb"),
    )
    with _open_sqlalchemy_connection(engine, address) as connection, _translate_sqlalchemy_errors(query, address):
        streamed = connection.execution_options(stream_results=True, yield_per=FETCHED)
        rows = streamed.execute(sqlalchemy.text(bound.text), bound.values)
        if not rows.returns_rows:
            raise DataError("The query returns no rows: it is not a SELECT.", "Give a query that returns a table.")
        names = list(rows.keys())
        yield pa.table([pa.nulls(0)] * len(names), names=names)
        with _drop_lost_connection(rows):
            for part in rows.partitions(FETCHED):
                yield pa.table([make_array(values) for values in zip(*part, strict=True)], names=names)


def _create_sqlalchemy_engine(address: Address) -> Engine:
    import sqlalchemy
    from sqlalchemy import exc

    scheme, _, rest = address.value.partition("://")
    try:
        url = sqlalchemy.make_url(f"{_DRIVERS.get(scheme, scheme)}://{rest}")
        if url.get_backend_name() == "sqlite":
            return _create_sqlite_engine(url, address)
        return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, hide_parameters=True)
    except exc.NoSuchModuleError:
        raise DataError(
            f"No SQLAlchemy dialect for '{scheme}' is installed.",
            "Install the package that has it, or correct the address: postgresql://, mysql://, sqlite:///, duckdb:///.",
        ) from None
    except ModuleNotFoundError as error:
        raise DataError(
            f"The driver of {scheme} is not installed: {error.name}.", f"Install it: pip install {error.name}"
        ) from None
    except (exc.ArgumentError, ValueError):
        raise DataError(
            f"{address} is not the address of a database.",
            "Write it as dialect://user:${DB_PASSWORD}@host:port/database.",
        ) from None


def _create_sqlite_engine(url: Any, address: Address) -> Engine:
    """SQLite keeps times, booleans and decimals as numbers and texts; a column's declared type brings them back."""
    import sqlite3

    import sqlalchemy

    file = url.database
    if file and file != ":memory:" and not file.startswith("file:") and not Path(file).is_file():
        # SQLite would make an empty one.
        raise DataError(
            f"There is no SQLite file {address.hide_secrets(file)}.",
            "Check the path: sqlite:///relative or sqlite:////absolute.",
        )

    for kind, convert in _CONVERTERS.items():
        sqlite3.register_converter(kind, convert)
    return sqlalchemy.create_engine(
        url,
        poolclass=sqlalchemy.NullPool,
        hide_parameters=True,
        connect_args={"detect_types": sqlite3.PARSE_DECLTYPES},
    )


def _parse_sqlite_datetime(value: bytes) -> datetime | str:
    text = value.decode()
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text


def _parse_sqlite_date(value: bytes) -> date | str:
    text = value.decode()
    try:
        return date.fromisoformat(text)
    except ValueError:
        return text


def _truth(value: bytes) -> bool | str:
    """SQLite takes any text in a column that is declared BOOLEAN: what is neither true nor false stays a text."""
    text = value.decode()
    return _TRUTH.get(text.strip().lower(), text)


_TRUTH = {
    **dict.fromkeys(("1", "1.0", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "0.0", "false", "f", "no", "n", "off"), False),
}
"""As PostgreSQL reads booleans: https://www.postgresql.org/docs/current/datatype-boolean.html."""

_CONVERTERS: dict[str, Any] = {
    "DATE": _parse_sqlite_date,
    "DATETIME": _parse_sqlite_datetime,
    "TIMESTAMP": _parse_sqlite_datetime,
    "BOOLEAN": _truth,
    "DECIMAL": lambda value: Decimal(value.decode()),
    "NUMERIC": lambda value: Decimal(value.decode()),
}


@contextmanager
def _open_sqlalchemy_connection(engine: Engine, address: Address) -> Iterator[Connection]:
    from sqlalchemy import exc

    try:
        connection = engine.connect()
    except exc.DBAPIError as error:
        raise unreachable_database_error(address.shown, address.hide_secrets(_read_driver_message(error))) from None
    try:
        yield connection
    finally:
        connection.close()
        engine.dispose()


@contextmanager
def _drop_lost_connection(rows: Any) -> Iterator[None]:
    """PyMySQL reads on from a lost connection when its cursor is collected, and complains on standard error."""
    from sqlalchemy import exc

    try:
        yield
    except exc.DBAPIError as error:
        result = getattr(rows.context.cursor, "_result", None)
        if result is not None and error.connection_invalidated and hasattr(result, "unbuffered_active"):
            result.unbuffered_active = False
        raise


@contextmanager
def _translate_sqlalchemy_errors(query: str, address: Address) -> Iterator[None]:
    """SQLAlchemy's errors as ours."""
    from sqlalchemy import exc

    try:
        yield
    except exc.DBAPIError as error:
        message = address.hide_secrets(_read_driver_message(error))
        if error.connection_invalidated:
            raise LostConnectionError(message) from None
        raise refused_query_error(query, message) from None
    except exc.SQLAlchemyError as error:
        raise refused_query_error(query, address.hide_secrets(error)) from None


def _read_driver_message(error: Any) -> str:
    """The database's own words; some drivers put a number before them."""
    told = error.orig.args
    return str(told[-1] if told else error.orig)
