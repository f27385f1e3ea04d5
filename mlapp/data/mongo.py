"""MongoDB: the documents of a collection as a DataFrame, with nested documents in columns such as `address.city`.

    app.data_reader.mongo("${MONGO_URL}", "shop.orders", {"day": {"$gte": ":since"}}, fields=["price"], since=date)

or, inside your own reader, `mongo.read("${MONGO_URL}", "shop.orders", {"paid": True})`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

from mlapp.data import document_queries, flatten, reconnect
from mlapp.data.frames import Types
from mlapp.data.reconnect import LostConnectionError, UnreachableError
from mlapp.data.secrets import Address, expand_secrets_in_address, redact_secrets
from mlapp.data.source import (
    Reader,
    make_streaming_reader,
    refuse_misfit_source_parameters,
    to_data_source_value,
)
from mlapp.errors import DataError, MissingExtraError, UsageError, suggest_nearest

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Query = Mapping[str, Any] | Sequence[Mapping[str, Any]]

TIMEOUT = 10_000
"""Timeout in milliseconds for finding a server."""


@overload
def read(
    url: str,
    collection: str,
    query: Query | None = None,
    *,
    fields: Sequence[str] | None = None,
    chunks: None = None,
    types: Types | None = None,
    **parameters: Any,
) -> pd.DataFrame: ...
@overload
def read(
    url: str,
    collection: str,
    query: Query | None = None,
    *,
    fields: Sequence[str] | None = None,
    chunks: int,
    types: Types | None = None,
    **parameters: Any,
) -> Iterator[pd.DataFrame]: ...
def read(
    url: str,
    collection: str,
    query: Query | None = None,
    *,
    fields: Sequence[str] | None = None,
    chunks: int | None = None,
    types: Types | None = None,
    **parameters: Any,
) -> pd.DataFrame | Iterator[pd.DataFrame]:
    """Read documents.

    Args:
        url: `mongodb://…` or `mongodb+srv://…`; `${NAME}` is taken from the environment.
        collection: `database.collection`, or only the collection if the URL names the database.
        query: a filter, or a list of aggregation stages. A text `":name"` is replaced by a parameter, which is always a
            value, never an operator or a field.
        fields: the fields to read, including nested ones such as `address.city`; by default all except `_id`.
        chunks: yield DataFrames of this number of rows, for data that is larger than memory.
        types: pandas types for single columns, such as `{"city": "category"}`.
        parameters: the values. A date means midnight in UTC.

    Raises:
        DataError: the connection failed, the collection does not exist, or MongoDB refuses the query.
        UsageError: a parameter is missing or unknown.
        MissingExtraError: the packages of the extra `mongo` are not installed.
    """
    refuse_misfit_source_parameters(document_queries.find_document_query_parameters(query), parameters, "the query")
    values = {
        name: _to_safe_mongo_value(name, document_queries.convert_document_date(to_data_source_value(value)))
        for name, value in parameters.items()
    }
    filled_query = _fill_mongo_query(query, values)
    address = expand_secrets_in_address(url)
    return reconnect.read_with_reconnects(
        address.display_name, lambda: _stream_mongo_documents(address, collection, filled_query, fields), chunks, types
    )


def source(
    url: str,
    collection: str,
    query: Query | None = None,
    *,
    fields: Sequence[str] | None = None,
    chunks: int | None = None,
    types: Types | None = None,
    **parameters: Any,
) -> Reader:
    """The source behind `app.data_reader.mongo`: the query's parameters are the reader's.

    Raises:
        DeclarationError: a parameter of the query has neither a type nor a value, or is not in the query.
    """
    options: dict[str, Any] = {"fields": fields, "types": types}
    return make_streaming_reader(
        "mongo",
        f"The documents of {collection} in {redact_secrets(url)}.",
        lambda values, rows: read(url, collection, query, chunks=rows, **options, **values),
        parameters=parameters,
        placeholders=document_queries.find_document_query_parameters(query),
        where="the query",
        chunks=chunks,
    )


def _to_safe_mongo_value(name: str, value: Any) -> Any:
    """Check that a parameter's value cannot change the query, and return it.

    Raises:
        UsageError: it contains a document, which can hold operators such as {"$gt": ""}.
    """
    parts = value if isinstance(value, list | tuple | set) else [value]
    if any(isinstance(part, Mapping) for part in parts):
        raise UsageError(
            f"The parameter '{name}' contains a document, which MongoDB would interpret as operators.",
            "Give a single value; write operators in the query, such as {'price': {'$gt': ':least'}}.",
        )
    return value


def _fill_mongo_query(query: Query | None, values: Mapping[str, Any]) -> Any:
    """The query with its parameters. In expressions, texts like `$name` are escaped, as they would be fields."""
    if isinstance(query, list | tuple):
        return [
            {name: _fill_mongo_query_part(part, values, is_expression=name != "$match") for name, part in stage.items()}
            for stage in query
        ]
    return _fill_mongo_query_part(query, values, is_expression=False)


def _fill_mongo_query_part(pattern: Any, values: Mapping[str, Any], *, is_expression: bool) -> Any:
    if isinstance(pattern, Mapping):
        return {
            name: _fill_mongo_query_part(part, values, is_expression=is_expression or name == "$expr")
            for name, part in pattern.items()
        }
    if isinstance(pattern, list | tuple):
        return [_fill_mongo_query_part(part, values, is_expression=is_expression) for part in pattern]
    value = document_queries.fill_document_query(pattern, values)
    is_parameter = isinstance(pattern, str) and pattern.startswith(":") and pattern[1:] in values
    if is_expression and is_parameter and isinstance(value, str) and value.startswith("$"):
        return {"$literal": value}
    return value


def _stream_mongo_documents(
    address: Address, collection: str, query: Any, fields: Sequence[str] | None
) -> Iterator[pa.Table]:
    with _open_mongo_collection(address, collection) as documents, _translate_mongo_errors(address):
        if isinstance(query, list | tuple):
            cursor = documents.aggregate([*query, {"$project": _make_mongo_projection(fields)}] if fields else query)
        else:
            cursor = documents.find(query or {}, _make_mongo_projection(fields))
        with cursor:
            first = next(cursor, None)
            if first is None:
                _refuse_unknown_mongo_collection(documents)
            yield from flatten.flatten_documents(_iterate_mongo_documents(first, cursor), _from_mongo_value)


def _make_mongo_projection(fields: Sequence[str] | None) -> dict[str, int]:
    if fields is None:
        return {"_id": 0}
    return {**dict.fromkeys(fields, 1), **({} if "_id" in fields else {"_id": 0})}


def _iterate_mongo_documents(first: Any, rest: Any) -> Iterator[Any]:
    if first is not None:
        yield first
        yield from rest


def _from_mongo_value(value: Any) -> Any:
    """Convert a value of a BSON type to a plain Python value."""
    from bson import Binary, Code, Decimal128, Int64, ObjectId, Regex

    if isinstance(value, Decimal128):
        return value.to_decimal()
    if isinstance(value, Int64):
        return int(value)
    if isinstance(value, Binary):
        return bytes(value)
    return str(value) if isinstance(value, ObjectId | Code | Regex) else value


@contextmanager
def _open_mongo_collection(address: Address, name: str) -> Iterator[Any]:
    try:
        import pymongo
        from pymongo import errors
    except ImportError:
        raise MissingExtraError("Reading MongoDB", "mongo") from None
    try:
        client: Any = pymongo.MongoClient(address.value, serverSelectionTimeoutMS=TIMEOUT, tz_aware=True)
    except (errors.ConfigurationError, errors.InvalidURI, ValueError) as error:
        raise DataError(
            f"{address} is not the address of a MongoDB server: {address.hide_secrets(error)}",
            "Write it as mongodb://user:${MONGO_PASSWORD}@host:port/.",
        ) from None
    try:
        try:
            yield client.get_default_database()[name]
        except errors.ConfigurationError:  # the URL names none
            database, dot, short = name.partition(".")
            if not dot:
                raise UsageError(f"'{name}' names no database.", f"Write it as database.{name}.") from None
            yield client[database][short]
    finally:
        client.close()


@contextmanager
def _translate_mongo_errors(address: Address) -> Iterator[None]:
    from pymongo import errors

    try:
        yield
    except errors.ServerSelectionTimeoutError as error:
        line = address.hide_secrets(error).partition(", Timeout:")[0].partition(" (configured timeouts")[0]
        raise UnreachableError(
            f"{address} cannot be reached: {line}", "Check the host and the port, and that MongoDB is running."
        ) from None
    except errors.OperationFailure as error:
        message = address.hide_secrets((error.details or {}).get("errmsg") or error)
        if error.code == 18:
            raise DataError(
                f"{address} refused the connection: {message}", "Check the user and the password in the address."
            ) from None
        todo = "Ask for permission to read it." if error.code == 13 else "Fix the query."
        raise DataError(f"The query failed: {message}", todo) from None
    except errors.ConnectionFailure as error:
        raise LostConnectionError(address.hide_secrets(error).partition(" (configured timeouts")[0]) from None
    except errors.PyMongoError as error:
        raise DataError(f"The query failed: {address.hide_secrets(error)}", "Fix the query.") from None


def _refuse_unknown_mongo_collection(collection: Any) -> None:
    """Raise an error for an unknown collection, which MongoDB treats as empty."""
    names = sorted(collection.database.list_collection_names())
    if collection.name not in names:
        raise DataError(
            f"The database '{collection.database.name}' has no collection '{collection.name}'."
            f"{suggest_nearest(collection.name, names)}",
            f"It has {', '.join(names)}." if names else "It has none: check the database's name.",
        )
