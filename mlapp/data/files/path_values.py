"""Values in the paths of files: those that a caller inserts for `{name}`, and those of folders `key=value`.

A caller's value cannot lead to another location. First, `${NAME}` in the app's path is expanded. Then values are
inserted literally: `${…}` in a value stays text, `*` matches itself, and `..`, absolute paths and other schemes are
refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlapp.data.secrets import Address, expand_secrets_in_address
from mlapp.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

NAME = re.compile(r"(?<!\$)\{(\w+)\}")
"""A parameter in a path, as opposed to an environment variable `${NAME}`."""

_WILD = re.compile(r"[*?\[]")
_MARK = re.compile("\0(\\w+)\0")
"""Placeholder for a parameter while variables are expanded; no environment variable can contain it."""


def fill_path_values(template: str, parameters: Mapping[str, Any]) -> Address:
    """The address of a path, with environment variables and parameters filled in.

    Raises:
        UsageError: a value would lead to another location.
        DataError: a variable is not set.
    """
    address = expand_secrets_in_address(NAME.sub("\0\\1\0", template))
    texts = {name: str(value) for name, value in parameters.items()}
    for name, text in texts.items():
        _refuse_escaping_path_value(name, text)
    value = address.value
    while match := _MARK.search(value):
        value = (
            value[: match.start()]
            + _encode_path_value(match[1], texts[match[1]], value[: match.start()])
            + value[match.end() :]
        )
    return replace(address, value=value, display_name=_MARK.sub(lambda match: texts[match[1]], address.display_name))


def _refuse_escaping_path_value(name: str, text: str) -> None:
    parts = text.split("/")
    is_name = text and "://" not in text and "\\" not in text and text.isprintable() and not text.startswith("~")
    if not is_name or any(part in ("", ".", "..") for part in parts):
        raise UsageError(
            f"{name}={text!r} cannot be used in a path.",
            "Give a name without '..', '//', '\\', and without '/' at its ends. For other places, write a data_reader.",
        )


def _encode_path_value(name: str, text: str, before: str) -> str:
    """Encode a value for its position in the address: percent-encoded on the web, otherwise with escaped wildcards.

    Args:
        before: the part of the address before the value.
    """
    scheme, separator, rest = before.partition("://")
    is_first = bool(separator) and "/" not in rest  # a host or a bucket
    if is_first and "/" in text:
        raise UsageError(
            f"{name}={text!r} contains a '/', but this part of the path is a single name.", "Give a name without '/'."
        )
    if separator and scheme in ("http", "https"):
        return quote(text, safe="" if is_first or "?" in rest or "#" in rest else "/")
    return _WILD.sub(lambda match: r"[\[]" if match[0] == "[" else f"[{match[0]}]", text)


def add_partition_columns(table: pa.Table, values: Mapping[str, Any], columns: Sequence[str] | None) -> pa.Table:
    """The table with a column for each folder `key=value`."""
    import pyarrow as pa

    for name, value in values.items():
        if name not in table.column_names and (columns is None or name in columns):
            table = table.append_column(name, pa.repeat(value, table.num_rows))
    return table.select(list(columns)) if columns is not None else table


def convert_partition_values(partitions: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The values of the folders, as integers or dates if all values of a key have that type."""
    names = {name for each in partitions for name in each}
    converters = {
        name: _choose_partition_converter([each[name] for each in partitions if name in each]) for name in names
    }
    return [{name: converters[name](value) for name, value in each.items()} for each in partitions]


def _choose_partition_converter(values: Sequence[str]) -> Any:
    for convert in (int, date.fromisoformat):
        try:
            for value in values:
                convert(value)
        except ValueError:
            continue
        return convert
    return str
