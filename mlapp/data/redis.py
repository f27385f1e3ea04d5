"""Redis: the values of the keys that match a pattern, as the rows of a DataFrame.

    app.data_reader.redis("${REDIS_URL}", "user:*")
    app.data_reader.redis("${REDIS_URL}", "clicks:{day}", day=date)

A row is a hash, a string with a JSON object, an item of a list, an entry of a stream, or a member of a set or sorted
set. The column `key` contains the key of the row.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

from mlapp.data import flatten, reconnect
from mlapp.data.frames import Types
from mlapp.data.reconnect import LostConnectionError, UnreachableError
from mlapp.data.secrets import Address, expand_secrets_in_address, redact_secrets
from mlapp.data.source import Reader, make_streaming_reader, refuse_misfit_source_parameters
from mlapp.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

KEYS = 1000
"""Number of keys per round trip."""

_NAME = re.compile(r"(?<!\$)\{(\w+)\}")


@overload
def read(
    url: str,
    keys: str,
    *,
    fields: Sequence[str] | None = None,
    chunks: None = None,
    types: Types | None = None,
    **parameters: Any,
) -> pd.DataFrame: ...
@overload
def read(
    url: str,
    keys: str,
    *,
    fields: Sequence[str] | None = None,
    chunks: int,
    types: Types | None = None,
    **parameters: Any,
) -> Iterator[pd.DataFrame]: ...
def read(
    url: str,
    keys: str,
    *,
    fields: Sequence[str] | None = None,
    chunks: int | None = None,
    types: Types | None = None,
    **parameters: Any,
) -> pd.DataFrame | Iterator[pd.DataFrame]:
    """Read the values of keys that match a pattern, in the order of the keys.

    Args:
        url: `redis://:${REDIS_PASSWORD}@host:port/0` or `rediss://…`; `${NAME}` is taken from the environment.
        keys: a key, or a pattern of keys with `*`; `{name}` is replaced by the value of a parameter, in which `*` is a
            plain character.
        fields: the columns to keep, including `key` if needed; by default, all.
        chunks: yield DataFrames of this number of rows, for data that is larger than memory.
        types: pandas types for single columns. Redis stores texts: without a type, a column of a hash or stream is read
            as numbers if all of its values are numbers.
        parameters: the values.

    Raises:
        DataError: the connection failed, no key matches, or a value is not a row.
        UsageError: a parameter is missing or unknown.
        MissingExtraError: the packages of the extra `redis` are not installed.
    """
    refuse_misfit_source_parameters(_NAME.findall(keys), parameters, "the pattern of keys")
    pattern = _NAME.sub(lambda match: _escape_redis_pattern(str(parameters[match[1]])), keys)
    address = expand_secrets_in_address(url)
    typed_columns = list(types or {})
    return reconnect.read_with_reconnects(
        address.display_name,
        lambda: _stream_redis_rows(address, pattern, fields),
        chunks,
        types,
        infer=lambda table: flatten.convert_flattened_texts(table, typed_columns),
    )


def source(
    url: str,
    keys: str,
    *,
    fields: Sequence[str] | None = None,
    chunks: int | None = None,
    types: Types | None = None,
    **parameters: Any,
) -> Reader:
    """The source behind `app.data_reader.redis`: each `{name}` in the pattern is a parameter of the reader.

    Raises:
        DeclarationError: a name in the pattern has neither a type nor a value, or a parameter is not in the pattern.
    """
    options: dict[str, Any] = {"fields": fields, "types": types}
    return make_streaming_reader(
        "redis",
        f"The values of the keys {keys} in {redact_secrets(url)}.",
        lambda values, rows: read(url, keys, chunks=rows, **options, **values),
        parameters=parameters,
        placeholders=_NAME.findall(keys),
        where="the pattern of keys",
        chunks=chunks,
    )


def _escape_redis_pattern(text: str) -> str:
    """Escape `*` and other wildcards of a value in a key pattern (https://redis.io/docs/latest/commands/keys/)."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def _stream_redis_rows(address: Address, pattern: str, fields: Sequence[str] | None) -> Iterator[pa.Table]:
    with _open_redis(address) as client:
        keys = sorted(set(client.scan_iter(pattern, count=KEYS)))
        if not keys:
            raise DataError(
                f"No key in {address} matches {pattern}.", "Check the pattern, and the number of the database."
            )
        remaining = iter(keys)
        rows = itertools.chain.from_iterable(
            _fetch_redis_rows(client, part) for part in iter(lambda: list(itertools.islice(remaining, KEYS)), [])
        )
        for table in flatten.flatten_documents(rows):
            yield table.select([name for name in fields if name in table.column_names]) if fields else table


def _fetch_redis_rows(client: Any, keys: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of these keys, in two round trips: first their types, then their values."""
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.type(key)
        kinds = pipeline.execute()
        for key, kind in zip(keys, kinds, strict=True):
            match kind:
                case "hash":
                    pipeline.hgetall(key)
                case "string":
                    pipeline.get(key)
                case "list":
                    pipeline.lrange(key, 0, -1)
                case "stream":
                    pipeline.xrange(key)
                case "zset":
                    pipeline.zrange(key, 0, -1, withscores=True)
                case "set":
                    pipeline.smembers(key)
                case _:
                    pipeline.exists(key)
        for key, kind, value in zip(keys, kinds, pipeline.execute(), strict=True):
            yield from ({"key": key, **row} for row in _make_redis_rows(key, kind, value))


def _make_redis_rows(key: str, kind: str, value: Any) -> Iterator[dict[str, Any]]:
    match kind:
        case "hash":
            yield value
        case "string":
            yield _parse_redis_object(value)
        case "list":
            yield from (_parse_redis_object(item) for item in value)
        case "stream":
            yield from ({"id": entry, **row} for entry, row in value)
        case "zset":
            yield from ({"member": member, "score": score} for member, score in value)
        case "set":
            yield from ({"member": member} for member in sorted(value))
        case "none":  # it expired between the requests
            return
        case _:
            raise DataError(
                f"The key {key} contains a {kind}, which cannot be read as a row.",
                "Choose keys of hashes, JSON texts or streams.",
            )


def _parse_redis_object(text: str) -> dict[str, Any]:
    """The fields of a JSON object; any other text becomes the column `value`."""
    try:
        value = json.loads(text)
    except ValueError:
        return {"value": text}
    return value if isinstance(value, dict) else {"value": text}


@contextmanager
def _open_redis(address: Address) -> Iterator[Any]:
    try:
        import redis
        from redis import exceptions
    except ImportError:
        raise MissingExtraError("Reading Redis", "redis") from None
    try:
        client: Any = redis.Redis.from_url(address.value, decode_responses=True, socket_connect_timeout=10)
    except ValueError as error:
        raise DataError(
            f"{address} is not the address of a Redis server: {address.hide_secrets(error)}",
            "Write it as redis://:${REDIS_PASSWORD}@host:port/0.",
        ) from None
    try:
        client.ping()
    except exceptions.AuthenticationError as error:
        raise DataError(
            f"{address} refused the request: {address.hide_secrets(error)}", "Check the password in the address."
        ) from None
    except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
        raise UnreachableError(
            f"{address} cannot be reached: {address.hide_secrets(error)}",
            "Check the host and the port, and that Redis is running.",
        ) from None
    except exceptions.RedisError as error:
        raise DataError(
            f"{address} refused the request: {address.hide_secrets(error)}", "Check the password in the address."
        ) from None
    try:
        yield client
    except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
        raise LostConnectionError(address.hide_secrets(error)) from None
    except UnicodeDecodeError:
        raise DataError(f"A value in {address} is not text.", "Choose keys whose values are text.") from None
    except exceptions.RedisError as error:
        raise DataError(
            f"{address} refused the request: {address.hide_secrets(error)}", "Check the user's read permissions."
        ) from None
    finally:
        client.close()
