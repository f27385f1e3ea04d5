"""Write docs/reference/kubernetes-settings.md from the descriptions of `targets.k8s`. A test compares them."""

from __future__ import annotations

from pathlib import Path

from mlapp.deploy.k8s import KubernetesSettings
from scripts.settings_tables import render_target

DOCUMENT = Path(__file__).parent.parent / "docs" / "reference" / "kubernetes-settings.md"
HEAD = """# Settings of `targets.k8s`

The section `targets.k8s` of `mlapp.yaml`. For examples, see [Deploy to Kubernetes](../kubernetes.md). A quantity is a
number in Kubernetes notation: `500m`, `2`, `512Mi`.

"""


def render_page() -> str:
    """The page as Markdown."""
    return HEAD + render_target(KubernetesSettings)


if __name__ == "__main__":
    DOCUMENT.write_text(render_page(), encoding="utf-8")
