"""Remembers which files of a project mlapp's commands have written, so that they do not become part of an image."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

OUTPUTS = Path(".mlapp/outputs")
"""A file with a relative path on each line. A path can occur several times."""


def record_project_outputs(root: Path, files: Iterable[Path]) -> None:
    """Remember files that a command has written. Files outside the project in `root` are not remembered."""
    folder = root.resolve()
    # A file may itself be a link, so only its folder is resolved.
    paths = [file.absolute().parent.resolve() / file.name for file in files]
    lines = [path.relative_to(folder).as_posix() for path in paths if path.is_relative_to(folder)]
    with suppress(
        OSError, UnicodeEncodeError
    ):  # the command has succeeded; otherwise the next build includes the files
        (root / OUTPUTS).parent.mkdir(exist_ok=True)
        with (root / OUTPUTS).open("a", encoding="utf-8") as record:
            record.writelines(f"{line}\n" for line in lines if "\n" not in line)


def read_project_outputs(root: Path) -> set[Path]:
    """The relative paths of the files that commands have written."""
    try:
        return {Path(line) for line in (root / OUTPUTS).read_text(encoding="utf-8").splitlines()}
    except (OSError, UnicodeDecodeError):
        return set()
