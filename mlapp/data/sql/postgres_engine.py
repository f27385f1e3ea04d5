"""PostgreSQL through its Arrow driver (ADBC): rows arrive in binary and never become Python objects.

A query without parameters is read with COPY, the fastest way to read from PostgreSQL. A query with parameters uses a
server-side cursor, because COPY cannot bind them. Both run in a read-only transaction, so that a read can be repeated
if its connection breaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlapp.data.reconnect import LostConnectionError
from mlapp.data.secrets import Address
from mlapp.data.sql.errors import refused_query_error, unreachable_database_error
from mlapp.data.sql.query import BoundQuery, bind_query_parameters
from mlapp.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pyarrow as pa

FETCH_ROWS = 50_000
"""Rows per fetch from a cursor."""

BATCH = str(4 * 1024 * 1024)
"""Bytes of one batch of COPY."""

_LOST = (
    "server closed the connection",
    "connection not open",
    "no connection to the server",
    "ssl connection has",
    "terminating connection",
)
_GONE = ("57P01", "57P02", "57P03")  # shut down, crashed, starting: see PostgreSQL's Appendix A
_SELECT = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(select|with|values|table)\b", re.IGNORECASE | re.DOTALL)
# PostgreSQL's times begin in 4714 BC. Earlier values come from `infinity`, which overflows in the driver.
_BEGIN = {"date": -2_450_000, "timestamp": -220_000_000_000_000_000}


def stream_postgres(address: Address, query: str, values: Mapping[str, Any]) -> Iterator[pa.Table]:
    """Stream the query's rows as Arrow tables; at least one table, which can be empty.

    Raises:
        DataError: the connection failed, or the database refuses the query.
        LostConnectionError: the connection broke.
    """
    bound = bind_query_parameters(query.rstrip().rstrip(";"), values, lambda number, _: f"${number}")
    with (
        _open_postgres_connection(address) as connection,
        connection.cursor() as cursor,
        _translate_postgres_errors(query, bound),
    ):
        cursor.execute("SET TRANSACTION READ ONLY")
        text = _cast_unreadable_postgres_columns(cursor, bound.text)
        scales: dict[str, Any] = {}
        for batch in (
            _stream_postgres_by_cursor(cursor, text, bound) if bound.values else _stream_postgres_by_copy(cursor, text)
        ):
            yield _convert_postgres_columns(batch, scales)


def _stream_postgres_by_copy(cursor: Any, text: str) -> Iterator[pa.Table]:
    import pyarrow as pa

    if not _SELECT.match(text):  # SHOW and EXPLAIN cannot be copied
        cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
    cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": BATCH})
    cursor.execute(text + "\n")  # the newline ends a trailing comment, which would hide what COPY appends
    batches = cursor.fetch_record_batch()
    yield pa.Table.from_batches([], batches.schema)
    for batch in batches:
        yield pa.Table.from_batches([batch])


def _stream_postgres_by_cursor(cursor: Any, text: str, bound: BoundQuery) -> Iterator[pa.Table]:
    values = _type_postgres_parameters(cursor, text, bound)
    if not _SELECT.match(text):
        raise DataError("The query returns no rows: it is not a SELECT.", "Give a query that returns a table.")
    cursor.execute(f"DECLARE mlapp NO SCROLL CURSOR FOR {text}", values)
    cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
    while True:
        cursor.execute(f"FETCH FORWARD {FETCH_ROWS} FROM mlapp")
        table = cursor.fetch_arrow_table()
        yield table
        if table.num_rows < FETCH_ROWS:
            return


def _type_postgres_parameters(cursor: Any, text: str, bound: BoundQuery) -> pa.RecordBatch:
    """The values, cast to the types that PostgreSQL infers if possible, so that a date can be given as text."""
    import pyarrow as pa

    parameter_schema = cursor.adbc_prepare(text)
    columns = []
    for number, (name, value) in enumerate(bound.values.items()):
        column = pa.array([value])
        kind = (
            parameter_schema.field(number).type
            if parameter_schema is not None and number < len(parameter_schema)
            else column.type
        )
        try:
            columns.append(column.cast(kind) if _is_plain_postgres_type(kind) else column)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(
                f"The parameter :{name} is {value!r}, but the query needs a {_strip_postgres_type(kind)}.",
                "Give a value of that type, or cast it in the query.",
            ) from None
    return pa.RecordBatch.from_arrays(columns, names=list(bound.values))


def _is_plain_postgres_type(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_primitive(kind) or pa.types.is_string(kind))


def _strip_postgres_type(kind: pa.DataType) -> str:
    return re.sub(r"\d+(\[.*\])?$|\[.*\]$", "", str(kind))


def _cast_unreadable_postgres_columns(cursor: Any, text: str) -> str:
    """The query with a cast to text for columns of types that only PostgreSQL can read, such as inet or point."""
    schema = cursor.adbc_execute_schema(text)
    unreadable = {field.name for field in schema if _find_postgres_type_name(field) not in (None, "numeric")}
    if not unreadable:
        return text
    columns = (
        f"{_quote_postgres_identifier(name)}::text AS {_quote_postgres_identifier(name)}"
        if name in unreadable
        else _quote_postgres_identifier(name)
        for name in schema.names
    )
    return f"SELECT {', '.join(columns)} FROM ({text}\n) AS mlapp"  # noqa: S608  # only the user's own query


def _find_postgres_type_name(field: pa.Field) -> str | None:
    """The PostgreSQL type of a column without an Arrow type; None for other columns."""
    kind: Any = field.type
    name = getattr(kind, "type_name", None)
    return str(name) if name and getattr(kind, "vendor_name", "") == "PostgreSQL" else None


def _quote_postgres_identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _convert_postgres_columns(table: pa.Table, scales: dict[str, Any]) -> pa.Table:
    """Convert texts to exact decimals, and `infinity` to missing values, as pandas has no infinite times."""
    import pyarrow as pa

    for number, field in enumerate(table.schema):
        if _find_postgres_type_name(field) == "numeric":
            column = _parse_postgres_decimals(field.name, table.column(number), scales)
        elif pa.types.is_timestamp(field.type) or pa.types.is_date(field.type):
            column = _drop_infinite_postgres_times(table.column(number))
        else:
            continue
        table = table.set_column(number, field.name, column)
    return table


def _drop_infinite_postgres_times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    is_date = pa.types.is_date(column.type)
    since_1970 = column.cast(pa.int32() if is_date else pa.int64())
    infinite = pc.less(since_1970, _BEGIN["date" if is_date else "timestamp"])
    return pc.if_else(infinite, pa.scalar(None, column.type), column) if pc.any(infinite).as_py() else column


def _parse_postgres_decimals(name: str, column: pa.ChunkedArray, scales: dict[str, Any]) -> pa.ChunkedArray:
    """Convert texts such as `1.50` to decimals with the maximum number of decimal places; NaN becomes missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pa.chunked_array([chunk.storage for chunk in column.chunks], pa.string())
    texts = pc.if_else(pc.equal(pc.utf8_lower(texts), "nan"), None, texts)
    dot = pc.find_substring(texts, ".")
    places = pc.if_else(pc.equal(dot, -1), 0, pc.subtract(pc.subtract(pc.utf8_length(texts), dot), 1))
    scale = max(pc.max(places).as_py() or 0, scales.get(name, 0))
    scales[name] = scale
    for kind in (pa.decimal128(38, scale) if scale <= 38 else None, pa.decimal256(76, min(scale, 76))):
        try:
            return texts.cast(kind)
        except (pa.ArrowInvalid, AttributeError):
            continue
    raise DataError(
        f"The column '{name}' has numbers that need more than 76 decimal digits.",
        f"Read it as a float: {name}::float8 in the query.",
    )


@contextmanager
def _open_postgres_connection(address: Address) -> Iterator[Any]:
    try:
        import adbc_driver_manager
        import adbc_driver_postgresql.dbapi as driver
    except ImportError:
        raise MissingExtraError("Reading PostgreSQL", "sql") from None
    uri = "postgresql://" + address.value.partition("://")[2]
    if "connect_timeout=" not in uri:
        uri += ("&" if "?" in uri else "?") + "connect_timeout=10"
    try:
        connection = driver.connect(uri)
    except adbc_driver_manager.Error as error:
        raise unreachable_database_error(
            address.display_name, _strip_postgres_prefix(address.hide_secrets(error))
        ) from None
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _translate_postgres_errors(query: str, bound: BoundQuery) -> Iterator[None]:
    """Translate the driver's errors to DataError and LostConnectionError."""
    import adbc_driver_manager
    import pyarrow as pa

    try:
        yield
    except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
        state = getattr(error, "sqlstate", None) or ""
        details = {
            _decode_postgres_detail(key): _decode_postgres_detail(value) for key, value in getattr(error, "details", ())
        }
        message = details.get("PG_DIAG_MESSAGE_PRIMARY") or _strip_postgres_prefix(str(error))
        if state[:2] == "08" or state in _GONE or any(marker in str(error).lower() for marker in _LOST):
            raise LostConnectionError(message) from None
        position = details.get("PG_DIAG_STATEMENT_POSITION")
        raise refused_query_error(
            query, message, bound.find_original_query_position(int(position) - 1) if position else None
        ) from None


def _decode_postgres_detail(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _strip_postgres_prefix(text: str) -> str:
    """Extract PostgreSQL's message from the driver's, which adds its status before and the query after it."""
    message = text.split("\n\nQuery was:")[0].split("\n")[0]
    return (
        re.sub(r"^[A-Z_]+: (\[libpq\] )?(Failed to [a-z ]+: )?", "", message)
        .replace("ERROR:  ", "")
        .replace("FATAL:  ", "")
    )
