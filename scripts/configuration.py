"""Write docs/configuration.md from the settings' descriptions. A test compares them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mlapp.config import Settings
from scripts.settings_tables import find_introduction, find_section, render_table

DOCUMENT = Path(__file__).parent.parent / "docs" / "configuration.md"
HEAD = """# Settings

The file `mlapp.yaml`, next to `app.py`, contains the settings of a project. Every setting is optional. An unknown key
is an error, which suggests the nearest known key.

A setting can come from four places. A place overrides those above it:

| place | example |
|---|---|
| `mlapp.yaml` | `serve: {port: 80}` |
| `environments.staging`, with `--env staging` | `environments: {staging: {serve: {port: 80}}}` |
| the environment variable `MLAPP_SECTION__KEY` | `MLAPP_SERVE__PORT=80`; commas separate the items of a list |
| a command-line flag | `mlapp serve --port 80` |

Commands work on the project in the current folder. `mlapp -C DIR COMMAND` runs a command in another folder.
`MLAPP_APP=/srv/shop/app.py` selects an app from any folder, with the mlapp.yaml and the store of the app's folder.
"""
GUIDES = {
    "store": "[Store and promote versions](store.md)",
    "serve": "[Serve a model](serving.md) and [Operate the server](operate-server.md)",
    "image": "[Build images](images.md)",
    "flyte": "[Train on Flyte](flyte.md)",
    "monitor": "[Monitor a model](monitoring.md)",
}
TAIL = """## `targets`

Each target has its own section: [`targets.k8s`](reference/kubernetes-settings.md),
[`targets.kserve`](reference/kserve-settings.md), [`targets.knative`](reference/knative-settings.md),
[`targets.seldon`](reference/seldon-settings.md), [`targets.sagemaker`](reference/sagemaker-settings.md),
[`targets.lambda`](reference/lambda-settings.md) and [`targets.docker`](reference/docker-settings.md).
"""


def render_page() -> str:
    """The page as Markdown."""
    schema = msgspec.json.schema(Settings)
    sections = schema["$defs"]
    top = sections["Settings"]["properties"]
    parts = [HEAD, render_table("", {name: field for name, field in top.items() if not find_section(field)})]
    for name, field in top.items():
        section = find_section(field)
        if section:
            parts.append(f"## `{name}`\n")
            if name in GUIDES:
                parts.append(f"For examples, see {GUIDES[name]}.\n")
            fields = sections[section]["properties"]
            parts.append(render_table(f"{name}.", fields))
            for inner, below in fields.items():
                if nested := find_section(below):
                    each = "[]." if "items" in below else "."
                    parts.append(f"### `{name}.{inner}`\n")
                    parts.append(find_introduction(sections[nested]))
                    parts.append(render_table(f"{name}.{inner}{each}", sections[nested]["properties"]))
    return "\n".join([*parts, TAIL])


if __name__ == "__main__":
    DOCUMENT.write_text(render_page(), encoding="utf-8")
