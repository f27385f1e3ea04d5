"""All other databases through SQLAlchemy: MySQL, MariaDB, SQLite, and any with an installed dialect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlapp.data.frames import make_frame_array
from mlapp.data.reconnect import LostConnectionError
from mlapp.data.secrets import Address
from mlapp.data.sql.errors import refused_query_error, unreachable_database_error
from mlapp.data.sql.query import bind_query_parameters
from mlapp.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Connection, Engine

FETCH_ROWS = 20_000
"""Rows per fetch."""

_DRIVERS = {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}


def stream_sqlalchemy(address: Address, query: str, values: Mapping[str, Any]) -> Iterator[pa.Table]:
    """Stream the query's rows as Arrow tables; at least one table, which can be empty.

    Raises:
        DataError: the URL is invalid, the driver is missing, the connection failed, or the database refuses the query.
        LostConnectionError: the connection broke.
    """
    try:
        import pyarrow as pa
        import sqlalchemy
    except ImportError:
        raise MissingExtraError("Reading a database", "sql") from None
    engine = _create_sqlalchemy_engine(address)
    bound = bind_query_parameters(
        query,
        values,
        lambda _, name: f":{name}",
        rest=lambda text: text.replace(":", r"\:"),  # SQLAlchemy must see only our parameters
        backslashes=engine.dialect.name in ("mysql", "mariadb"),
    )
    with _open_sqlalchemy_connection(engine, address) as connection, _translate_sqlalchemy_errors(query, address):
        streamed = connection.execution_options(stream_results=True, yield_per=FETCH_ROWS)
        rows = streamed.execute(sqlalchemy.text(bound.text), bound.values)
        if not rows.returns_rows:
            raise DataError("The query returns no rows: it is not a SELECT.", "Give a query that returns a table.")
        names = list(rows.keys())
        yield pa.table([pa.nulls(0)] * len(names), names=names)
        with _drop_lost_sqlalchemy_connection(rows):
            for part in rows.partitions(FETCH_ROWS):
                yield pa.table([make_frame_array(values) for values in zip(*part, strict=True)], names=names)


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
    """Create an engine that converts values to the declared column types, as SQLite has no times and booleans."""
    import sqlite3

    import sqlalchemy

    file = url.database
    if file and file != ":memory:" and not file.startswith("file:") and not Path(file).is_file():
        # SQLite would create an empty database.
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


def _parse_sqlite_boolean(value: bytes) -> bool | str:
    """A boolean, or the text if it is neither true nor false: SQLite allows any text in a BOOLEAN column."""
    text = value.decode()
    return _TRUTH.get(text.strip().lower(), text)


_TRUTH = {
    **dict.fromkeys(("1", "1.0", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "0.0", "false", "f", "no", "n", "off"), False),
}
"""PostgreSQL's input forms of booleans: https://www.postgresql.org/docs/current/datatype-boolean.html."""

_CONVERTERS: dict[str, Any] = {
    "DATE": _parse_sqlite_date,
    "DATETIME": _parse_sqlite_datetime,
    "TIMESTAMP": _parse_sqlite_datetime,
    "BOOLEAN": _parse_sqlite_boolean,
    "DECIMAL": lambda value: Decimal(value.decode()),
    "NUMERIC": lambda value: Decimal(value.decode()),
}


@contextmanager
def _open_sqlalchemy_connection(engine: Engine, address: Address) -> Iterator[Connection]:
    from sqlalchemy import exc

    try:
        connection = engine.connect()
    except exc.DBAPIError as error:
        raise unreachable_database_error(
            address.display_name, address.hide_secrets(_read_sqlalchemy_message(error))
        ) from None
    try:
        yield connection
    finally:
        connection.close()
        engine.dispose()


@contextmanager
def _drop_lost_sqlalchemy_connection(rows: Any) -> Iterator[None]:
    """Mark a lost connection as finished. Otherwise PyMySQL reads from it when its cursor is collected, and prints an
    error.
    """
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
    """Translate SQLAlchemy's errors to DataError and LostConnectionError."""
    from sqlalchemy import exc

    try:
        yield
    except exc.DBAPIError as error:
        message = address.hide_secrets(_read_sqlalchemy_message(error))
        if error.connection_invalidated:
            raise LostConnectionError(message) from None
        raise refused_query_error(query, message) from None
    except exc.SQLAlchemyError as error:
        raise refused_query_error(query, address.hide_secrets(error)) from None


def _read_sqlalchemy_message(error: Any) -> str:
    """The database's message, without the number that some drivers prepend."""
    arguments = error.orig.args
    return str(arguments[-1] if arguments else error.orig)
