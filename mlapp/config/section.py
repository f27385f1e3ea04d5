"""The base of the settings' sections, and their strict decoding."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec

from mlapp.errors import ConfigError, suggest_nearest

FILE = "mlapp.yaml"
PREFIX = "MLAPP_"
END = r"$(?!\n)"
"""The end of a text in a pattern. `$` alone permits a line break there, which can be an instruction of a Dockerfile."""
PATTERN = "matching regex "
"""The text before the pattern in msgspec's message for a text that does not match."""
CHOICE = "Invalid enum value "
"""The text before the value in msgspec's message for a value that is not one of a setting's fixed values."""

TYPES = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "array": "a list",
    "object": "keys and values",
    "null": "nothing",
}
"""Names for users of the types in msgspec's messages."""

WORDS = "patternErrorMessage"
"""The key of a text's description in JSON Schema. Editors show it instead of the pattern, as mlapp's errors do."""

T = TypeVar("T")
KEY = re.compile(r" - at `key` in `\$(.*)`$")
"""The place in msgspec's message for a key of the wrong type."""


def describe_text(pattern: str, words: str, *examples: str, description: str | None = None) -> msgspec.Meta:
    """The constraint of a text.

    Args:
        pattern: what it matches.
        words: what is allowed, in words, for the error of a text that does not match.
        examples: texts that match.
        description: what the setting does.
    """
    meta = {WORDS: words}
    return msgspec.Meta(pattern=pattern, examples=list(examples), description=description, extra_json_schema=meta)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every section: immutable, and closed to unknown keys."""


def decode_section(kind: type[T], raw: object, at: str = "", *, from_variables: bool = False) -> T:
    """Convert plain data to a section.

    Args:
        kind: the class of the section.
        at: the path of the section in the file.
        from_variables: whether errors name the environment variable of a setting instead of the file.

    Raises:
        ConfigError: a key is unknown (the message suggests the nearest one), or a value has the wrong type.
    """
    _refuse_unknown_section_keys(kind, raw, at, from_variables)
    try:
        return msgspec.convert(raw, kind, strict=False)
    except msgspec.ValidationError as error:
        detail, _, path = str(error).partition(" - at `$")
        if detail.startswith(CHOICE):
            detail = _explain_section_choice(kind, detail, path.rstrip("`"))
        key = KEY.search(detail) if not path else None
        if PATTERN in detail:
            detail, path = _explain_section_pattern(kind, raw, detail, f"{key[1]}[...]" if key else path.rstrip("`"))
        elif key:
            detail, path = f"{detail[: key.start()]}. Quote the key", key[1]
        elif "[...]" in path:
            path = _name_section_entry(kind, raw, path.rstrip("`"), str(error))
        place = (at + path.rstrip("`")).lstrip(".") or FILE
        origin = _name_setting_variable(place) if from_variables else FILE
        raise ConfigError(
            f"{origin}: {place}: {_name_setting_types(detail)}",
            f"Change {origin if from_variables else f'{place} in {FILE}'}; `mlapp eject schema` lists every setting.",
        ) from None


def _name_setting_variable(place: str) -> str:
    """The environment variable of a setting, such as MLAPP_SERVE__PORT."""
    return PREFIX + place.upper().replace(".", "__")


def _name_setting_types(detail: str) -> str:
    """msgspec's message with YAML's words for the types, such as `an integer` for `int`."""
    return re.sub(r"`([a-z]+)( \| null)?`", lambda match: TYPES.get(match[1], match[0]), detail)


def _explain_section_pattern(kind: Any, raw: object, detail: str, path: str) -> tuple[str, str]:
    """Message and path of a text or a key that does not match its pattern. The message has words and examples instead
    of the pattern, and the path includes the key of a mapping, which msgspec omits.
    """
    pattern, schema = next(
        (
            pair
            for pair in iterate_section_patterns(msgspec.inspect.type_info(kind))
            if f"{PATTERN}{pair[0]!r}" in detail
        ),
        ("", {}),
    )
    if not schema:
        return detail, path
    value: Any = raw
    for step in re.findall(r"\[(?:\.\.\.|\d+)\]|[^.\[]+", path):
        if step == "[...]" and KEY.search(detail):
            value = next(key for key in value if not re.search(pattern, str(key)))
            path = path.replace("[...]", "", 1)
            continue
        if step == "[...]":
            key = next(key for key, item in value.items() if _has_wrong_text(item, pattern))
            path = path.replace("[...]", f".{key}", 1)
        else:
            key = int(step[1:-1]) if step.startswith("[") else step
        value = value[key]
    forms = " or ".join(schema["examples"])
    return f"{value!r} does not have the form of {forms}. Allowed: {schema[WORDS]}", path


def _has_wrong_text(value: Any, pattern: str) -> bool:
    """Whether a text in the value does not match the pattern."""
    if isinstance(value, Mapping):
        return any(_has_wrong_text(inner, pattern) for inner in value.values())
    return not re.search(pattern, str(value))


def _explain_section_choice(kind: Any, detail: str, path: str) -> str:
    """msgspec's message for a value that is not one of a setting's fixed values, with these values."""
    value = detail.removeprefix(CHOICE)
    options = list(_iterate_type_options(_describe_type(kind)))
    for step in re.findall(r"\[[^]]*\]|[^.\[]+", path):
        options = [inner for option in options for inner in _iterate_inner_options(option, step)]
    choices = [str(choice) for option in options for choice in getattr(option, "values", ())]
    nearest = suggest_nearest(value.strip("'"), choices)
    return f"{value} is not one of {', '.join(choices)}{f'.{nearest}' if nearest else ''}"


def _iterate_type_options(kind: Any) -> Iterator[msgspec.inspect.Type]:
    """The types that a value can have: those of a union, without metadata."""
    if isinstance(kind, msgspec.inspect.Metadata):
        yield from _iterate_type_options(kind.type)
    elif isinstance(kind, msgspec.inspect.UnionType):
        for option in kind.types:
            yield from _iterate_type_options(option)
    else:
        yield kind


def _iterate_inner_options(kind: Any, step: str) -> Iterator[msgspec.inspect.Type]:
    """The types at a step of msgspec's path: `field`, `[0]` in a list, `[...]` in a mapping."""
    if step.startswith("["):
        inner = [getattr(kind, name) for name in ("item_type", "value_type") if hasattr(kind, name)]
    else:
        inner = [field.type for field in getattr(kind, "fields", ()) if field.encode_name == step]
    for each in inner:
        yield from _iterate_type_options(each)


def _name_section_entry(kind: type[Any], raw: Any, path: str, message: str) -> str:
    """The path of a wrong value in a mapping, with its key, which msgspec omits: that of the first wrong entry."""
    before, _, after = path.partition("[...]")
    *names, last = before.strip(".").split(".")
    entries = raw
    for name in (*names, last):
        entries = entries[name] if isinstance(entries, Mapping) and name in entries else {}
    for key, value in entries.items() if isinstance(entries, Mapping) else ():
        single_entry: Any = {last: {key: value}}
        for name in reversed(names):
            single_entry = {name: single_entry}
        try:
            msgspec.convert(single_entry, kind, strict=False)
        except msgspec.ValidationError as error:
            if str(error) == message:
                return f"{before}.{key}{after}"
    return path


def iterate_section_patterns(kind: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The patterns of texts in a type, each with the JSON Schema that its setting gives: examples and words."""
    schema: Mapping[str, Any] = {}
    if isinstance(kind, msgspec.inspect.Metadata):
        schema = kind.extra_json_schema or {}
        kind = kind.type
    if isinstance(kind, msgspec.inspect.StrType) and kind.pattern:
        yield kind.pattern, schema
    inner = [getattr(kind, name) for name in ("item_type", "key_type", "value_type") if hasattr(kind, name)]
    for part in (*inner, *getattr(kind, "types", ()), *(field.type for field in getattr(kind, "fields", ()))):
        yield from iterate_section_patterns(part)


def _refuse_unknown_section_keys(kind: Any, raw: object, at: str, from_variables: bool) -> None:
    fields = list_section_fields(kind)
    if not fields or not isinstance(raw, Mapping):
        return
    for key, value in raw.items():
        place = f"{at}.{key}" if at else str(key)
        if key not in fields:
            origin = _name_setting_variable(place) if from_variables else FILE
            raise ConfigError(
                f"{origin}: '{place}' is not a setting.{_suggest_setting(str(key), fields, at)}",
                f"Known here: {', '.join(sorted(fields))}.",
            )
        _refuse_unknown_section_keys(fields[key], value, place, from_variables)


def _suggest_setting(key: str, fields: Mapping[str, Any], at: str) -> str:
    """A setting with a similar name, or one with this name in a nested section."""
    nested = [f"{at}.{name}.{key}".lstrip(".") for name, kind in fields.items() if key in list_section_fields(kind)]
    return suggest_nearest(key, fields) or (f" Did you mean '{nested[0]}'?" if nested else "")


def list_section_fields(kind: Any) -> dict[str, Any]:
    """The fields of a section by name, with their types; empty for any other type."""
    bare = strip_optional_setting_type(kind) if kind is not None else None
    if not isinstance(bare, msgspec.inspect.StructType):
        return {}
    return {field.encode_name: field.type for field in bare.fields}


_describe_type = cache(msgspec.inspect.type_info)


def strip_optional_setting_type(kind: Any) -> msgspec.inspect.Type:
    """The type without metadata and without `| None`."""
    bare = kind if isinstance(kind, msgspec.inspect.Type) else _describe_type(kind)
    while isinstance(bare, msgspec.inspect.Metadata):
        bare = bare.type
    if isinstance(bare, msgspec.inspect.UnionType):
        others = [option for option in bare.types if not isinstance(option, msgspec.inspect.NoneType)]
        return strip_optional_setting_type(others[0]) if len(others) == 1 else bare
    return bare
