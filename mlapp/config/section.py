"""The base of the settings' sections, and their strict decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from mlapp.errors import ConfigError, suggest_nearest

FILE = "mlapp.yaml"
PREFIX = "MLAPP_"

T = TypeVar("T")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every section: immutable, and closed to unknown keys."""


def decode_section(kind: type[T], raw: object, at: str = "") -> T:
    """Turn plain data into the section `kind`, whose place in the file is `at`.

    Raises:
        ConfigError: an unknown key, with the nearest known one; a value of the wrong type, with its place.
    """
    _refuse_unknown_keys(kind, raw, at)
    try:
        return msgspec.convert(raw, kind, strict=False)
    except msgspec.ValidationError as error:
        detail, _, path = str(error).partition(" - at `$")
        place = (at + path.rstrip("`")).lstrip(".") or FILE
        raise ConfigError(
            f"{FILE}: {place}: {detail}", f"Change {place} in {FILE}; docs/configuration.md lists every setting."
        ) from None


def _refuse_unknown_keys(kind: Any, raw: object, at: str) -> None:
    fields = list_section_fields(kind)
    if not fields or not isinstance(raw, Mapping):
        return
    for key, value in raw.items():
        place = f"{at}.{key}" if at else str(key)
        if key not in fields:
            raise ConfigError(
                f"{FILE}: '{place}' is not a setting.{suggest_nearest(str(key), fields)}",
                f"Known here: {', '.join(sorted(fields))}.",
            )
        _refuse_unknown_keys(fields[key], value, place)


def list_section_fields(kind: Any) -> dict[str, Any]:
    """The fields of a section by name, with their types; empty for any other type."""
    bare = strip_optional(kind) if kind is not None else None
    if not isinstance(bare, msgspec.inspect.StructType):
        return {}
    return {field.encode_name: field.type for field in bare.fields}


def strip_optional(kind: Any) -> msgspec.inspect.Type:
    """The type without metadata and without `| None`."""
    bare = kind if isinstance(kind, msgspec.inspect.Type) else msgspec.inspect.type_info(kind)
    while isinstance(bare, msgspec.inspect.Metadata):
        bare = bare.type
    if isinstance(bare, msgspec.inspect.UnionType):
        others = [option for option in bare.types if not isinstance(option, msgspec.inspect.NoneType)]
        return strip_optional(others[0]) if len(others) == 1 else bare
    return bare
