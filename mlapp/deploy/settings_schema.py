"""The JSON Schema of mlapp.yaml: the core settings, and those of all installed targets."""

from __future__ import annotations

from typing import Any

import msgspec

from mlapp import plugins
from mlapp.config import Settings


def make_settings_schema() -> dict[str, Any]:
    """A schema (draft 2020-12) for editors to complete and validate mlapp.yaml.

    An environment overrides the other settings, so it can contain any subset of them.
    """
    targets = {name: target.settings_type for name, target in plugins.load_plugins(plugins.TARGETS)}
    names = sorted(targets)
    (root_schema, *sections), definitions = msgspec.json.schema_components(
        [Settings, *(targets[name] for name in names)], ref_template="#/$defs/{name}"
    )
    target_sections = dict(zip(names, sections, strict=True))
    for name in list(definitions):
        _shorten_schema_description(definitions[name])
    settings = definitions["Settings"]
    store = settings["properties"]["store"]
    settings["properties"]["store"] = {
        "description": "Model store: its URL, or a section with its URL and the requirements for its versions.",
        "anyOf": [definitions["Store"]["properties"]["url"], store],
    }
    settings["properties"]["targets"] = {
        "type": "object",
        "description": "Where the app is deployed, by the target's name.",
        "properties": target_sections,
        "additionalProperties": {"type": "object"},
    }
    settings["properties"]["environments"] = {
        "type": "object",
        "description": "Settings by environment, laid over the others by --env.",
        "additionalProperties": root_schema,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mlapp.yaml",
        **root_schema,
        "$defs": definitions,
    }


def _shorten_schema_description(definition: dict[str, Any]) -> None:
    """Keep only the first line of a section's docstring; the rest is for readers of the code."""
    if "description" in definition:
        definition["description"] = definition["description"].partition("\n")[0]
