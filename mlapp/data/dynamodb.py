"""DynamoDB: the items of a table as a DataFrame, with nested maps in columns such as `address.city`.

    app.data_reader.dynamodb("orders", filter="day >= :since AND paid = :paid", since=str, paid=True)
    app.data_reader.dynamodb("orders", key="customer = :customer", customer=str)

The region, credentials and a custom endpoint come from AWS's standard sources: `AWS_REGION`, `~/.aws`, a role.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, overload

from mlapp.data import flatten, reconnect
from mlapp.data.frames import Types
from mlapp.data.reconnect import LostConnectionError, UnreachableError
from mlapp.data.source import (
    Reader,
    make_streaming_reader,
    refuse_misfit_source_parameters,
    to_data_source_value,
)
from mlapp.errors import DataError, MissingExtraError, suggest_nearest

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_VALUE = re.compile(r":([A-Za-z_]\w*)")
_WORD = re.compile(r"(?<![:#\w])[A-Za-z_]\w*")
_KEYWORDS = {"and", "or", "not", "in", "between"}
_FUNCTIONS = {"attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains", "size"}


@overload
def read(
    table: str,
    *,
    filter: str | None = None,
    key: str | None = None,
    index: str | None = None,
    fields: Sequence[str] | None = None,
    chunks: None = None,
    types: Types | None = None,
    **parameters: Any,
) -> pd.DataFrame: ...
@overload
def read(
    table: str,
    *,
    filter: str | None = None,
    key: str | None = None,
    index: str | None = None,
    fields: Sequence[str] | None = None,
    chunks: int,
    types: Types | None = None,
    **parameters: Any,
) -> Iterator[pd.DataFrame]: ...
def read(
    table: str,
    *,
    filter: str | None = None,
    key: str | None = None,
    index: str | None = None,
    fields: Sequence[str] | None = None,
    chunks: int | None = None,
    types: Types | None = None,
    **parameters: Any,
) -> pd.DataFrame | Iterator[pd.DataFrame]:
    """Read items: all that match a filter, or those of one key.

    Args:
        table: the table's name.
        filter: a DynamoDB filter expression with `:name` for a parameter. Names that DynamoDB reserves are allowed.
        key: a key condition, such as `customer = :customer`, to read only these items instead of the whole table.
        index: the secondary index to read; by default, the table itself.
        fields: the attributes to read; by default, all.
        chunks: yield DataFrames of this number of rows, for data that is larger than memory.
        types: pandas types for single columns. By default, numbers are integers if all are whole, otherwise floats.
        parameters: the values. A date is passed as text, 2026-01-31.

    Raises:
        DataError: the connection or the table is missing, access is denied, or DynamoDB refuses an expression.
        UsageError: a parameter is missing or unknown.
        MissingExtraError: the packages of the extra `dynamodb` are not installed.
    """
    refuse_misfit_source_parameters(_find_dynamodb_parameters(filter, key), parameters, "the expressions")

    def stream_items() -> Iterator[pa.Table]:
        return _scan_dynamodb_table(table, filter, key, index, fields, parameters)

    return reconnect.read_with_reconnects(f"DynamoDB's table {table}", stream_items, chunks, types)


def source(
    table: str,
    *,
    filter: str | None = None,
    key: str | None = None,
    index: str | None = None,
    fields: Sequence[str] | None = None,
    chunks: int | None = None,
    types: Types | None = None,
    **parameters: Any,
) -> Reader:
    """The source behind `app.data_reader.dynamodb`: each `:name` in the expressions is a parameter of the reader.

    Raises:
        DeclarationError: a parameter has neither a type nor a value, or is not in the expressions.
    """
    options: dict[str, Any] = {"filter": filter, "key": key, "index": index, "fields": fields, "types": types}
    return make_streaming_reader(
        "dynamodb",
        f"The items of DynamoDB's table {table}.",
        lambda values, rows: read(table, chunks=rows, **options, **values),
        parameters=parameters,
        placeholders=_find_dynamodb_parameters(filter, key),
        where="the expressions",
        chunks=chunks,
    )


def _find_dynamodb_parameters(*expressions: str | None) -> list[str]:
    return list(dict.fromkeys(name for expression in expressions for name in _VALUE.findall(expression or "")))


def _scan_dynamodb_table(
    table: str,
    filter: str | None,
    key: str | None,
    index: str | None,
    fields: Sequence[str] | None,
    values: dict[str, Any],
) -> Iterator[pa.Table]:
    with _open_dynamodb(table) as client:
        from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

        aliases: dict[str, str] = {}
        request: dict[str, Any] = {"TableName": table}
        if filter:
            request["FilterExpression"] = _alias_dynamodb_attributes(filter, aliases)
        if key:
            request["KeyConditionExpression"] = _alias_dynamodb_attributes(key, aliases)
        if index:
            request["IndexName"] = index
        if fields:
            request["ProjectionExpression"] = ", ".join(_alias_dynamodb_attributes(field, aliases) for field in fields)
        if aliases:
            request["ExpressionAttributeNames"] = aliases
        if values:
            serialize = TypeSerializer().serialize
            request["ExpressionAttributeValues"] = {
                f":{name}": serialize(_to_dynamodb_value(to_data_source_value(value))) for name, value in values.items()
            }
        pages = client.get_paginator("query" if key else "scan").paginate(**request)
        deserialize = TypeDeserializer().deserialize
        rows = ({name: deserialize(value) for name, value in item.items()} for page in pages for item in page["Items"])
        yield from flatten.flatten_documents(rows, _from_dynamodb_value)


def _alias_dynamodb_attributes(expression: str, aliases: dict[str, str]) -> str:
    """The expression with `#name` for each attribute's name, because DynamoDB reserves hundreds of words like `day`."""

    def alias_match(match: re.Match[str]) -> str:
        word = match[0]
        is_call = expression[match.end() :].lstrip().startswith("(")
        if word.lower() in _KEYWORDS or (word.lower() in _FUNCTIONS and is_call):
            return word
        aliases[f"#{word}"] = word
        return f"#{word}"

    return _WORD.sub(alias_match, expression)


def _to_dynamodb_value(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(str(value))
    return value.isoformat() if isinstance(value, date) else value


def _from_dynamodb_value(value: Any) -> Any:
    from boto3.dynamodb.types import Binary

    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and abs(value) < 2**63 else float(value)
    return bytes(value.value) if isinstance(value, Binary) else value


@contextmanager
def _open_dynamodb(table: str) -> Iterator[Any]:
    try:
        import boto3
        from botocore import exceptions
        from botocore.config import Config
    except ImportError:
        raise MissingExtraError("Reading DynamoDB", "dynamodb") from None
    title = f"DynamoDB's table {table}"
    try:
        retries = {"mode": "standard", "max_attempts": 3}
        client = boto3.client("dynamodb", config=Config(connect_timeout=10, retries=retries))
        yield client
    except exceptions.NoRegionError:
        raise DataError(f"No AWS region is set for {title}.", "Set AWS_REGION.") from None
    except exceptions.NoCredentialsError:
        raise DataError(
            f"No AWS credentials are set for {title}.", "Set AWS_ACCESS_KEY_ID, or run: aws configure."
        ) from None
    except exceptions.ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        if code == "ResourceNotFoundException":
            tables = client.list_tables()["TableNames"]
            problem = f"There is no table '{table}' in DynamoDB.{suggest_nearest(table, tables)}"
            raise DataError(problem, f"It has {', '.join(tables)}." if tables else "Check the region.") from None
        todo = (
            "Fix the expression." if code == "ValidationException" else "Check the credentials and their permissions."
        )
        raise DataError(f"{title} refused the request: {message}", todo) from None
    except exceptions.EndpointConnectionError as error:
        raise UnreachableError(
            f"{title} cannot be reached: {error}", "Check AWS_REGION and AWS_ENDPOINT_URL."
        ) from None
    except exceptions.HTTPClientError as error:
        raise LostConnectionError(str(error)) from None
