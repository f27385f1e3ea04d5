"""Write docs/reference/NAME-settings.md for targets on model platforms, from their descriptions. A test compares."""

from __future__ import annotations

from pathlib import Path

from mlapp.deploy.target import find_target_class
from scripts.settings_tables import render_target

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
GUIDES = {
    "kserve": ("Deploy to KServe", "kserve.md"),
    "knative": ("Deploy to Knative and Cloud Run", "knative.md"),
    "seldon": ("Deploy to Seldon Core 2", "seldon.md"),
    "sagemaker": ("Deploy to Amazon SageMaker", "sagemaker.md"),
}
"""The guide of each target: its title and file."""
HEAD = """# Settings of `targets.{name}`

The section `targets.{name}` of `mlapp.yaml`. For examples, see [{title}](../{file}). A quantity is a number in
Kubernetes notation: `500m`, `2`, `512Mi`.

"""


def make_pages() -> dict[Path, str]:
    """File → text of each page."""
    return {
        REFERENCE / f"{name}-settings.md": HEAD.format(name=name, title=title, file=file)
        + render_target(find_target_class(name).settings_type)
        for name, (title, file) in GUIDES.items()
    }


if __name__ == "__main__":
    for path, text in make_pages().items():
        path.write_text(text, encoding="utf-8")
