"""Reads the requirements of a project from its lock file, requirements.txt or pyproject.toml."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlapp.bundle import lockfiles
from mlapp.bundle.bundle import BundleError
from mlapp.bundle.requirement_lines import expand_requirement_variables
from mlapp.config import Image

INCLUDED = re.compile(
    r"^[ \t]*(?:-r|-c|--requirement|--constraint)[ \t=]*([\"']?)(.+?)\1[ \t\r]*(?:[ \t]#.*)?$", re.MULTILINE
)
INDEX = re.compile(r"^\s*(-i|--index-url|--extra-index-url|-f|--find-links)[ =]\s*(\S+)", re.MULTILINE)

UNRELATED_MLAPP = re.compile(r"^\s*[\"']?mlapp\s*(\[[^]]*\]\s*)?([=<>~!]=|[<>@;,\"'#]|$)", re.MULTILINE | re.IGNORECASE)
"""A requirement of `mlapp`, the unrelated package on PyPI."""

LONG = {"-i": "--index-url", "-f": "--find-links"}


@dataclass(frozen=True)
class DeclaredRequirements:
    """The project's requirements from the file `source`: as `lines`, or in a `file` that uv reads directly.

    Attributes:
        text: everything that determines the resolution, so that equal texts have equal resolutions.
        hashes: name and version → the SHA-256 of each of its files, if the file contains them.
        indexes: lines of a requirements file with package indexes, such as `--extra-index-url https://…`.
        folders: local folders with packages.
    """

    source: str
    text: str
    lines: tuple[str, ...] = ()
    file: Path | None = None
    hashes: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    indexes: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()

    @property
    def has_unrelated_mlapp(self) -> bool:
        """Whether they contain `mlapp`, which is an unrelated package on PyPI."""
        return UNRELATED_MLAPP.search(self.text) is not None


def read_declared_requirements(root: Path, image: Image, python: str) -> DeclaredRequirements | None:
    """The requirements of the project in `root`, from a lock, else requirements.txt, else pyproject.toml; or None.

    Args:
        python: the minor version of the image's Python, such as 3.11.

    Raises:
        BundleError: a file is invalid, or refers to a missing file.
    """
    lock = lockfiles.read_lockfile(root, image, python)
    if lock is not None:
        file, pinned = lock
        lines = tuple(each.line for each in pinned)
        hashes = {(each.name, each.version): each.hashes for each in pinned if each.hashes}
        urls = dict.fromkeys(each.index for each in pinned if each.index)
        return DeclaredRequirements(
            file.name, "\n".join(lines), lines, hashes=hashes, indexes=tuple(f"--extra-index-url {url}" for url in urls)
        )
    if (root / "requirements.txt").is_file():
        file = root / "requirements.txt"
        text = _inline_included_requirements(file, root)
        return DeclaredRequirements(
            file.name,
            text,
            file=file,
            indexes=tuple(_find_requirement_index_options(text)),
            folders=tuple(_find_requirement_link_folders(text, root)),
        )
    file = root / "pyproject.toml"
    if not file.is_file():
        return None
    content = lockfiles.load_toml(file)
    if "project" in content:
        return DeclaredRequirements(file.name, file.read_text(encoding="utf-8"), file=file)
    if "dependencies" in content.get("tool", {}).get("poetry", {}):
        raise BundleError(
            "pyproject.toml declares dependencies for Poetry, but there is no poetry.lock.", "Run: poetry lock."
        )
    return None


def _inline_included_requirements(file: Path, root: Path, visited: tuple[Path, ...] = ()) -> str:
    """The text of a requirements file with its local includes. uv reads remote includes."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BundleError(f"{file} is not UTF-8 text.", "Save it as UTF-8.") from None
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}.", "Fix its name or its permissions.") from None
    for _, name in INCLUDED.findall(text):
        included = file.parent / expand_requirement_variables(name, root)
        if "://" in name or included in (*visited, file):
            continue
        if not included.is_file():
            raise BundleError(
                f"{file.name} includes {name}, which does not exist.", "Create the file, or remove that line."
            )
        text += _inline_included_requirements(included, root, (*visited, file))
    return text


def _find_requirement_index_options(text: str) -> Iterator[str]:
    """The options for remote package indexes, in their long form."""
    for option, place in INDEX.findall(text):
        if "://" in place:
            yield f"{LONG.get(option, option)} {place}"


def _find_requirement_link_folders(text: str, root: Path) -> Iterator[Path]:
    """The local folders of the option --find-links."""
    for option, place in INDEX.findall(text):
        if LONG.get(option, option) == "--find-links" and (root / place).is_dir():
            yield root / place
