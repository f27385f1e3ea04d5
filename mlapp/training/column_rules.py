"""Which values of each column may be stored: `monitor.columns` of mlapp.yaml."""

from __future__ import annotations

from pathlib import Path

from mlapp import config


def read_column_rules(root: Path | None = None) -> dict[str, str]:
    """Column → `drop`, `hash` or `round(STEP)`.

    Args:
        root: the project's folder; the current one when absent.
    """
    return dict(config.load_settings(root or Path.cwd()).monitor.columns)
