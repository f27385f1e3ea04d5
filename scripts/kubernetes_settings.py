"""Write the settings of `targets.k8s` into docs/kubernetes.md from their own descriptions. A test holds it to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from mlapp.deploy.k8s import KubernetesSettings

DOCUMENT = Path(__file__).parent.parent / "docs" / "kubernetes.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->\n"


def document() -> str:
    """The page, with its tables rewritten."""
    text = DOCUMENT.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{tables()}\n{END}{rest.split(END)[1]}"


def tables() -> str:
    """A table of the settings that stand alone, then one for each section."""
    schema = msgspec.json.schema(KubernetesSettings)
    sections = schema["$defs"]
    top = sections["KubernetesSettings"]["properties"]
    parts = [_table("", top)]
    for name, field in top.items():
        section = _section(field)
        if section:
            each = ".NAME." if "additionalProperties" in field else "[]." if "items" in field else "."
            parts += [f"### `{name}`\n", _lead(sections[section])]
            parts.append(_table(f"{name}{each}", sections[section]["properties"]))
            for inner, below in sections[section]["properties"].items():
                if nested := _section(below):
                    parts.append(_table(f"{name}.{inner}[].", sections[nested]["properties"]))
    return "\n".join(parts)


def _lead(section: dict[str, Any]) -> str:
    """What the section's docstring says after its name."""
    text = " ".join(section.get("description", "").split()).partition(":` ")[2]
    return f"{text[:1].upper()}{text[1:]}\n" if text else ""


def _section(field: dict[str, Any]) -> str | None:
    """The section that a field is, lists or maps."""
    options = [field, *field.get("anyOf", []), field.get("items") or {}]
    if isinstance(field.get("additionalProperties"), dict):
        options.append(field["additionalProperties"])
    reference = next((option["$ref"] for option in options if "$ref" in option), None)
    return reference.rpartition("/")[2] if reference else None


def _table(prefix: str, fields: dict[str, Any]) -> str:
    rows = [
        f"| `{prefix}{name}` | {_type(field)} | {_default(field)} | {field['description']} |"
        for name, field in fields.items()
        if "description" in field
    ]
    return "\n".join(["| setting | type | default | |", "|---|---|---|---|", *rows, ""])


def _type(field: dict[str, Any]) -> str:
    options = [option for option in field.get("anyOf", [field]) if option.get("type") != "null"]
    if any(option.get("pattern", "").endswith("Ei)?$") for option in options):
        return "quantity"
    if values := next((option["enum"] for option in options if "enum" in option), None):
        return " or ".join(f"`{value}`" for value in values if value is not None)
    names = ["mapping" if "$ref" in option else str(option.get("type", "text")) for option in options]
    return " or ".join({"array": "list", "object": "mapping"}.get(name, name) for name in names)


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    return "" if value in (None, [], {}) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
