"""What a project says that it needs: from its lock, its requirements.txt or its pyproject.toml, whichever it has."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlapp.bundle import uv
from mlapp.bundle.bundle import BundleError
from mlapp.config import Image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Declared:
    """The project's requirements, from the file that `source` names: as `lines`, or in a `file` that uv reads itself.

    `text` is all that they depend on, so that the same text resolves the same way.
    """

    source: str
    text: str
    lines: tuple[str, ...] = ()
    file: Path | None = None


def declared(root: Path, image: Image) -> Declared | None:
    """The requirements of the project in `root`: a lock before requirements.txt before pyproject.toml; None if none.

    Raises:
        BundleError: a file is not what its name says, or names a file that is not there.
    """
    for name, read in (("uv.lock", _of_uv), ("poetry.lock", _of_lock), ("pdm.lock", _of_lock)):
        if (root / name).is_file():
            lines = tuple(read(root / name, image))
            return Declared(name, "\n".join(lines), lines)
    if (root / "requirements.txt").is_file():
        file = root / "requirements.txt"
        return Declared(file.name, _with_included(file), file=file)
    file = root / "pyproject.toml"
    if file.is_file() and "project" in _toml(file):
        return Declared(file.name, file.read_text(encoding="utf-8"), file=file)
    return None


def _of_uv(lock: Path, image: Image) -> list[str]:
    options = ["--frozen", "--no-dev", "--no-emit-project", "--no-hashes", "--no-annotate", "--no-header", "--quiet"]
    printed = uv.run(["export", *options], folder=lock.parent, image=image, doing=f"Reading {lock.name}")
    return [line for line in printed.splitlines() if line.strip()]


def _of_lock(lock: Path, image: Image) -> Iterator[str]:
    """The packages of a poetry or pdm lock that the project itself needs, as exact requirements.

    Both hold `[[package]]` tables; their groups are `main` or `default`, and poetry before 2.0 calls them categories.
    """
    for package in _toml(lock).get("package", []):
        groups = package.get("groups") or [package.get("category", "main")]
        if not {"main", "default"} & set(groups) or package.get("optional"):
            continue
        marker = package.get("marker") or package.get("markers")
        if isinstance(marker, dict):  # poetry: one a group
            marker = marker.get("main")
        if (package.get("source") or {}).get("type") in ("directory", "file", "git", "url") or "path" in package:
            raise BundleError(
                f"{lock.name}: {package['name']} comes from no package index.",
                "Publish it to an index, or move its code into the project.",
            )
        yield f"{package['name']}=={package['version']}" + (f" ; {marker}" if marker else "")


def _with_included(file: Path, seen: tuple[Path, ...] = ()) -> str:
    """The text of a requirements file and of those that it includes."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BundleError(f"{seen[-1].name} includes {file.name}, which does not exist.", "Mend that line.") from None
    except UnicodeDecodeError:
        raise BundleError(f"{file} is not UTF-8 text.", "Save it as UTF-8.") from None
    for name in re.findall(r"^\s*(?:-r|-c|--requirement|--constraint)[ =]?\s*(\S+)", text, re.MULTILINE):
        included = file.parent / name
        if included not in (*seen, file):
            text += _with_included(included, (*seen, file))
    return text


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{file.name} is not TOML: {error}", "Mend that line, or make the lock again.") from None
