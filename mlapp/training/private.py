"""The columns of which no value may be stored, as `monitor.columns` of mlapp.yaml says."""

from __future__ import annotations

from pathlib import Path

from mlapp import config


def private_columns(root: Path | None = None) -> frozenset[str]:
    """The columns with the rule `drop` or `hash`.

    Args:
        root: the project's folder; the current one when absent.
    """
    columns = config.load_settings(root or Path.cwd()).monitor.columns
    return frozenset(name for name, rule in columns.items() if rule in ("drop", "hash"))
