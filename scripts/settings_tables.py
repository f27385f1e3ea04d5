"""Markdown tables of settings, from the descriptions in a msgspec struct."""

from __future__ import annotations

from typing import Any

import msgspec


def render_target(settings_type: type) -> str:
    """A table of the plain settings of a target's section, then a heading and a table for each nested section."""
    schema = msgspec.json.schema(settings_type)
    sections = schema["$defs"]
    top = sections[settings_type.__name__]["properties"]
    parts = [render_table("", {name: field for name, field in top.items() if "description" in field})]
    for name, field in top.items():
        section = find_section(field)
        if section is None:
            continue
        each = ".NAME." if "additionalProperties" in field else "[]." if "items" in field else "."
        parts.append(f"## `{name}`\n")
        if introduction := find_introduction(sections[section]):
            parts.append(introduction)
        fields = sections[section]["properties"]
        parts.append(render_table(f"{name}{each}", fields))
        for inner, below in fields.items():
            if nested := find_section(below):
                parts.append(render_table(f"{name}.{inner}[].", sections[nested]["properties"]))
    return "\n".join(parts)


def render_table(prefix: str, fields: dict[str, Any]) -> str:
    """A table with a row for each field that has a description. `prefix` is added before the name."""
    rows = [
        f"| `{prefix}{name}` | {_render_type(field)} | {_render_default(field)} | {field['description']} |"
        for name, field in fields.items()
        if "description" in field
    ]
    return "\n".join(["| setting | type | default | description |", "|---|---|---|---|", *rows, ""])


def find_section(field: dict[str, Any]) -> str | None:
    """The name of the section in a field, or in its list or mapping; None for a plain value."""
    options = [field, *field.get("anyOf", []), field.get("items") or {}]
    if isinstance(field.get("additionalProperties"), dict):
        options.append(field["additionalProperties"])
    reference = next((option["$ref"] for option in options if "$ref" in option), None)
    return reference.rpartition("/")[2] if reference else None


def find_introduction(section: dict[str, Any]) -> str:
    """The text of the section's docstring after its name; empty without one."""
    text = " ".join(section.get("description", "").split()).partition(":` ")[2]
    return f"{text[:1].upper()}{text[1:]}\n" if text else ""


def _render_type(field: dict[str, Any]) -> str:
    options = [option for option in field.get("anyOf", [field]) if option.get("type") != "null"]
    if any(option.get("pattern", "").endswith("Ei)?$") for option in options):
        return "quantity"
    names: list[str] = []
    for option in options:
        if "enum" in option:
            names += [f"`{_write_value(value)}`" for value in option["enum"] if value is not None]
        elif "$ref" in option:
            names.append("mapping")
        else:
            kind = str(option.get("type", "any"))
            names.append({"array": "list", "object": "mapping"}.get(kind, kind))
    return " or ".join(dict.fromkeys(names))


def _render_default(field: dict[str, Any]) -> str:
    value = field.get("default")
    return "" if value in (None, [], {}) else f"`{_write_value(value)}`"


def _write_value(value: Any) -> str:
    """A value as YAML writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
