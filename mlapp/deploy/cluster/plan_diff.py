"""A plan as a unified diff from the current to the planned objects."""

from __future__ import annotations

import difflib
from typing import Any

from mlapp.deploy.cluster.change_plan import ChangePlan, strip_server_fields
from mlapp.deploy.yaml_dump import dump_yaml


def diff_plan(plan: ChangePlan) -> str:
    """The diff; empty if nothing would change."""
    return "".join(
        _diff_planned_object(change.title, change.before, change.after)
        for change in plan.changes
        if change.action != "same"
    )


def _diff_planned_object(title: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    old = dump_yaml(strip_server_fields(before)).splitlines(keepends=True) if before else []
    new = dump_yaml(strip_server_fields(after)).splitlines(keepends=True) if after else []
    lines = difflib.unified_diff(
        old, new, f"{title} (in the cluster)" if before else "/dev/null", f"{title} (to be)" if after else "/dev/null"
    )
    return "".join(lines)
