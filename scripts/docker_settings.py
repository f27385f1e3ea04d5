"""Write docs/reference/docker-settings.md from the descriptions of `targets.docker`. A test compares them."""

from __future__ import annotations

from pathlib import Path

from mlapp.deploy.docker.settings import DockerSettings
from scripts.settings_tables import render_target

DOCUMENT = Path(__file__).parent.parent / "docs" / "reference" / "docker-settings.md"
HEAD = """# Settings of `targets.docker`

The section `targets.docker` of `mlapp.yaml`. For an example, see
[Run on a Docker engine](../images.md#run-on-a-docker-engine).

"""


def render_page() -> str:
    """The page as Markdown."""
    return HEAD + render_target(DockerSettings)


if __name__ == "__main__":
    DOCUMENT.write_text(render_page(), encoding="utf-8")
