"""`mlapp doctor`"""

from __future__ import annotations

from pathlib import Path

from mlapp.cli import output
from mlapp.cli.options import Json


def diagnose_machine(json: Json = False) -> None:
    """Show what works here, what is missing, and how to get it.

    Example:

      mlapp doctor
    """
    from mlapp.diagnosis import examine_machine

    findings = examine_machine(Path.cwd())
    if json:
        output.print_json(findings)
        return
    rows = []
    for finding in sorted(findings, key=lambda finding: not finding.works):
        rows.append(["ok" if finding.works else "--", finding.what, finding.detail])
        if finding.todo:
            rows.append(["", "", f"→ {finding.todo}"])
    output.print_table(["", "what", "found"], rows)
