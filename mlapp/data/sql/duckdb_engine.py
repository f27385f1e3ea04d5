"""DuckDB, which supports Arrow natively: `duckdb:///warehouse.duckdb`, or `duckdb://` to query files with SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlapp.data.secrets import Address
from mlapp.data.sql.errors import refused_query_error, unreachable_database_error
from mlapp.data.sql.query import bind_query_parameters
from mlapp.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pyarrow as pa


def stream_duckdb(address: Address, query: str, values: Mapping[str, Any]) -> Iterator[pa.Table]:
    """Stream the query's rows as Arrow tables; at least one table, which can be empty.

    A database file is opened read-only and never created.

    Raises:
        DataError: the file does not exist, or DuckDB refuses the query.
    """
    try:
        import duckdb
        import pyarrow as pa
    except ImportError:
        raise MissingExtraError("Reading DuckDB", "sql") from None
    bound = bind_query_parameters(query, values, lambda _, name: f"${name}")
    file = address.value.partition("://")[2].removeprefix("/")
    in_memory = file in ("", ":memory:")
    if not in_memory and not Path(file).is_file():
        raise DataError(
            f"There is no DuckDB file {address.hide_secrets(file)}.",
            "Check the path: duckdb:///relative or duckdb:////absolute.",
        )
    try:
        connection = duckdb.connect(":memory:" if in_memory else file, read_only=not in_memory)
    except duckdb.Error as error:
        raise unreachable_database_error(address.display_name, address.hide_secrets(error)) from None
    try:
        connection.execute("SET enable_progress_bar = false")  # it would be printed to stdout, among results
        rows = connection.sql(bound.text, params=bound.values or None)
        if rows is None:
            raise DataError("The query returns no rows: it is not a SELECT.", "Give a query that returns a table.")
        batches = pa.RecordBatchReader.from_stream(rows)
        yield pa.Table.from_batches([], batches.schema)
        for batch in batches:
            yield pa.Table.from_batches([batch])
    except (duckdb.Error, pa.ArrowException) as error:
        raise refused_query_error(
            query, re.sub(r"^\w+ Error: |\n\nLINE .*", "", address.hide_secrets(error), flags=re.DOTALL)
        ) from None
    finally:
        connection.close()
