"""Reads the lock files of uv, Poetry and PDM as exact requirements."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from mlapp.bundle import uv
from mlapp.bundle.bundle import BundleError
from mlapp.bundle.requirement_lines import (
    MACHINES,
    is_requirement_marker_true,
    list_source_requirement_lines,
    parse_locked_requirement_lines,
    resolve_requirement_folder,
)
from mlapp.config import Image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPI = "https://pypi.org/simple"


@dataclass(frozen=True)
class PinnedPackage:
    """One package of a lock.

    Attributes:
        line: its requirement, in the syntax of a requirements file.
        name: the normalized name; empty for a package that comes from no index.
        hashes: SHA-256 of its files.
        index: the URL of its index; None for the default one.
    """

    line: str
    name: str = ""
    version: str = ""
    hashes: tuple[str, ...] = ()
    index: str | None = None


def read_lockfile(root: Path, image: Image, python: str) -> tuple[Path, list[PinnedPackage]] | None:
    """The lock file of the project in `root`, and its packages that the project needs at runtime; None without a lock.

    Args:
        python: the minor version of the image's Python, such as 3.11.

    Raises:
        BundleError: the lock is damaged.
    """
    file = _find_uv_lock(root)
    if file is not None:
        return file, list(_read_uv_lock(file, root, image))
    if (root / "poetry.lock").is_file():
        file = root / "poetry.lock"
        return file, list(_read_poetry_lock(file, python))
    if (root / "pdm.lock").is_file():
        file = root / "pdm.lock"
        return file, [
            _pin_locked_package(package, root)
            for package in load_toml(file).get("package", [])
            if _is_lock_entry_needed(package)
        ]
    return None


def load_toml(file: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        BundleError: the file is not valid TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{file.name} is not TOML: {error}", "Fix that line, or regenerate the lock file.") from None


def _find_uv_lock(root: Path) -> Path | None:
    """The uv.lock of the project, or of its workspace."""
    if (root / "uv.lock").is_file():
        return root / "uv.lock"
    for folder in root.parents if (root / "pyproject.toml").is_file() else ():
        if (folder / "uv.lock").is_file() and (folder / "pyproject.toml").is_file():
            is_workspace = "workspace" in load_toml(folder / "pyproject.toml").get("tool", {}).get("uv", {})
            return folder / "uv.lock" if is_workspace else None
    return None


def _read_uv_lock(lock: Path, root: Path, image: Image) -> Iterator[PinnedPackage]:
    options = ["--frozen", "--no-default-groups", "--no-emit-project", "--no-annotate", "--no-header", "--quiet"]
    text = uv.run_uv(["export", *options], folder=root, image=image, activity=f"Reading {lock.name}")
    indexes: dict[tuple[str, str], str | None] = {}
    for package in load_toml(lock).get("package", []):
        registry = package.get("source", {}).get("registry", PYPI)
        indexes[canonicalize_name(package["name"]), package.get("version", "")] = None if registry == PYPI else registry
    for each in parse_locked_requirement_lines(text):
        index = indexes.get((each.name, each.version))
        yield PinnedPackage(str(each.requirement), each.name, each.version, each.hashes, index)
    for source in list_source_requirement_lines(text):
        yield PinnedPackage(str(resolve_requirement_folder(source, lock.parent) or source))


def _read_poetry_lock(lock: Path, python: str) -> Iterator[PinnedPackage]:
    """Read Poetry's lock. Packages have groups since Poetry 2.0, a category until 1.4, and neither in between."""
    packages = load_toml(lock).get("package", [])
    if packages and not any("groups" in package or "category" in package for package in packages):
        needed = _collect_locked_names(lock.with_name("pyproject.toml"), packages, python)
        packages = [package for package in packages if canonicalize_name(package["name"]) in needed]
    for package in packages:
        if _is_lock_entry_needed(package):
            yield _pin_locked_package(package, lock.parent)


def _collect_locked_names(pyproject: Path, packages: list[dict[str, Any]], python: str) -> set[str]:
    """The names of the requirements in pyproject.toml and of their transitive dependencies on Linux."""
    dependencies = (
        load_toml(pyproject).get("tool", {}).get("poetry", {}).get("dependencies", {}) if pyproject.is_file() else {}
    )
    needs: dict[str, list[tuple[str, Any]]] = {}
    for package in packages:
        needs.setdefault(canonicalize_name(package["name"]), []).extend((package.get("dependencies") or {}).items())
    pending = [(name, declaration, "") for name, declaration in dependencies.items()]
    visited: set[tuple[str, str]] = set()
    while pending:
        name, declaration, of_extra = pending.pop()
        for table in declaration if isinstance(declaration, list) else [declaration]:
            if not isinstance(table, Mapping):
                table = {}
            if not _is_lock_marker_true(table.get("markers"), python, of_extra):
                continue
            for extra in ("", *table.get("extras", ())):
                node = canonicalize_name(name), extra
                if node not in visited and node[0] in needs:
                    visited.add(node)
                    pending += [(*need, extra) for need in needs[node[0]]]
    return {name for name, _ in visited}


def _is_lock_marker_true(marker: str | None, python: str, extra: str) -> bool:
    return marker is None or any(
        is_requirement_marker_true(Marker(marker), f"{python}.99", machine, extra) for machine in MACHINES
    )


def _is_lock_entry_needed(package: Mapping[str, Any]) -> bool:
    groups = package.get("groups") or [package.get("category", "main")]
    return bool({"main", "default"} & set(groups)) and not package.get("optional")


def _pin_locked_package(package: Mapping[str, Any], root: Path) -> PinnedPackage:
    """A package in a lock of Poetry or PDM, which use similar keys."""
    name, version = canonicalize_name(package["name"]), str(package["version"])
    source = package.get("source") or {}
    address = package.get("git") or package.get("path") or package.get("url") or source.get("url") or ""
    kind = source.get("type") or next((each for each in ("git", "path", "url") if each in package), "")
    marker = package.get("marker") or package.get("markers")
    if isinstance(marker, dict):  # Poetry: one per group
        marker = marker.get("main")
    suffix = f" ; {marker}" if marker else ""
    if kind == "git":
        commit = package.get("revision") or source.get("resolved_reference")
        folder = package.get("subdirectory") or source.get("subdirectory")
        return PinnedPackage(f"{name} @ git+{address}@{commit}{f'#subdirectory={folder}' if folder else ''}{suffix}")
    if kind in ("directory", "file", "path"):
        return PinnedPackage(f"{name} @ {(root / address).resolve().as_uri()}{suffix}")
    if kind == "url":
        return PinnedPackage(f"{name} @ {address}{suffix}")
    files = (str(file["hash"]).partition(":") for file in package.get("files") or [])
    hashes = tuple(sorted({digest for algorithm, _, digest in files if algorithm == "sha256"}))
    index = address.rstrip("/") if kind == "legacy" else None
    return PinnedPackage(f"{name}=={version}{suffix}", name, version, hashes, None if index == PYPI else index)
