"""A plan as a unified diff, from the objects as they are to the objects as they would be."""

from __future__ import annotations

import difflib
from typing import Any

from mlapp.deploy.documents import to_yaml
from mlapp.deploy.k8s.plan import Plan, clean


def unified(plan: Plan) -> str:
    """The diff; empty when nothing would change."""
    return "".join(
        _object_diff(change.title, change.before, change.after) for change in plan.changes if change.action != "same"
    )


def _object_diff(title: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    old = to_yaml(clean(before)).splitlines(keepends=True) if before else []
    new = to_yaml(clean(after)).splitlines(keepends=True) if after else []
    lines = difflib.unified_diff(
        old, new, f"{title} (in the cluster)" if before else "/dev/null", f"{title} (to be)" if after else "/dev/null"
    )
    return "".join(lines)
