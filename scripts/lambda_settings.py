"""Write docs/reference/lambda-settings.md from the descriptions of `targets.lambda`. A test compares them."""

from __future__ import annotations

from pathlib import Path

from mlapp.aws_lambda.settings import LambdaSettings
from scripts.settings_tables import render_target

DOCUMENT = Path(__file__).parent.parent / "docs" / "reference" / "lambda-settings.md"
HEAD = """# Settings of `targets.lambda`

The section `targets.lambda` of `mlapp.yaml`. For an example, see [Run on AWS Lambda](../lambda.md).

"""


def render_page() -> str:
    """The page as Markdown."""
    return HEAD + render_target(LambdaSettings)


if __name__ == "__main__":
    DOCUMENT.write_text(render_page(), encoding="utf-8")
