"""Write docs/configuration.md from the settings' own descriptions. A test holds the file to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from mlapp.config import Settings

DOCUMENT = Path(__file__).parent.parent / "docs" / "configuration.md"
HEAD = """# Settings

`mlapp.yaml` stands beside `app.py`. All of it is optional; an unknown key is an error that names the nearest one. An
environment variable `MLAPP_SECTION__KEY` overrides the file (`MLAPP_SERVE__PORT=80`; a list is separated by commas),
and a command's flag overrides both. `environments:` holds overlays by name: `mlapp deploy --env staging` lays
`environments.staging` over the rest.

`mlapp -C DIR COMMAND` runs a command in another folder. `MLAPP_APP=/srv/shop/app.py` names an app from any folder: then
its own folder's mlapp.yaml and store are used.
"""
TAIL = """## `targets`

Each target types its own section; see [Kubernetes](kubernetes.md).
"""


def document() -> str:
    """The whole page."""
    schema = msgspec.json.schema(Settings)
    sections = schema["$defs"]
    top = sections["Settings"]["properties"]
    parts = [HEAD, _table("", {name: field for name, field in top.items() if not _section(field)})]
    for name, field in top.items():
        section = _section(field)
        if section:
            parts.append(f"## `{name}`\n")
            parts.append(_table(f"{name}.", sections[section]["properties"]))
    return "\n".join([*parts, TAIL])


def _section(field: dict[str, Any]) -> str | None:
    reference = field.get("$ref") or next((option.get("$ref") for option in field.get("anyOf", [])), None)
    return reference.rpartition("/")[2] if reference else None


def _table(prefix: str, fields: dict[str, Any]) -> str:
    rows = [
        f"| `{prefix}{name}` | {_type(field)} | {_default(field)} | {field.get('description', '')} |"
        for name, field in fields.items()
        if "description" in field
    ]
    return "\n".join(["| setting | type | default | |", "|---|---|---|---|", *rows, ""])


def _type(field: dict[str, Any]) -> str:
    options = field.get("anyOf", [field])
    names = [str(option.get("type", "any")) for option in options if option.get("type") != "null"]
    return " or ".join("list" if name == "array" else "mapping" if name == "object" else name for name in names)


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    return "" if value in (None, [], {}) else f"`{value}`"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
