"""`mlapp doctor`"""

from __future__ import annotations

from pathlib import Path

from mlapp.cli import output
from mlapp.cli.options import Json


def doctor(json: Json = False) -> None:
    """Show what works here, what is missing, and how to get it.

    Example:

      mlapp doctor
    """
    from mlapp.diagnosis import examine

    findings = examine(Path.cwd())
    if json:
        output.json(findings)
        return
    rows = []
    for finding in sorted(findings, key=lambda finding: not finding.works):
        rows.append(["ok" if finding.works else "--", finding.what, finding.detail])
        if finding.todo:
            rows.append(["", "", f"→ {finding.todo}"])
    output.table(["", "what", "found"], rows)
