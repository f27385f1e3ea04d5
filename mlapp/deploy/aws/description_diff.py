"""The difference between what runs on AWS and what a deploy would make of it."""

from __future__ import annotations

import difflib
from typing import Any

from mlapp.deploy.yaml_dump import dump_yaml_documents


def diff_descriptions(name: str, running: dict[str, Any], planned: dict[str, Any]) -> str:
    """A unified diff of two descriptions; a description is empty if nothing runs."""
    before, after = (dump_yaml_documents([each]) if each else "" for each in (running, planned))
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"{name} as it runs", f"{name} as it would"
    )
    return "".join(lines)
