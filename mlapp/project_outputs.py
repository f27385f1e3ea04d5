"""Remembers which files of a project mlapp's commands have written, so that they do not become part of an image."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

OUTPUTS = Path(".mlapp/outputs")
"""A file with a relative path on each line."""


def record_project_outputs(root: Path, files: Iterable[Path]) -> None:
    """Remember files that a command has written. Files outside the project in `root` are not remembered."""
    inside = [Path(os.path.abspath(file)) for file in files]
    lines = [file.relative_to(root.absolute()).as_posix() for file in inside if file.is_relative_to(root.absolute())]
    with suppress(OSError):  # the command has done its work, and a build then includes the files
        (root / OUTPUTS).parent.mkdir(exist_ok=True)
        with (root / OUTPUTS).open("a", encoding="utf-8") as record:
            record.writelines(f"{line}\n" for line in lines if "\n" not in line)


def read_project_outputs(root: Path) -> set[Path]:
    """The relative paths of the files that commands have written."""
    try:
        return {Path(line) for line in (root / OUTPUTS).read_text(encoding="utf-8").splitlines()}
    except (OSError, UnicodeDecodeError):
        return set()
