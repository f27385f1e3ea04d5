"""Builds wheels of requirements that come from no index, such as a folder or a git URL.

A hash can pin only a file, not a folder or a repository. With these wheels, the image is installed only from wheels.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from mlapp.bundle import uv, wheel
from mlapp.bundle.bundle import BundleError
from mlapp.bundle.project_files import find_project_files
from mlapp.bundle.requirement_lines import resolve_requirement_folder
from mlapp.config import Image
from mlapp.temporary_folders import open_temporary_folder

LOCAL_RECORDS = ("INSTALLER", "RECORD", "REQUESTED", "WHEEL", "direct_url.json", "uv_build.json", "uv_cache.json")
"""Files of a dist-info that describe the local installation, or that are written again for the wheel."""


@dataclass(frozen=True)
class BuiltWheel:
    """A wheel in the bundle."""

    name: str
    version: str
    file: Path


def build_source_wheels(
    sources: Sequence[str], folder: Path, *, root: Path, python: str, image: Image, cache: Path
) -> Iterator[BuiltWheel]:
    """Build sources into wheels in `folder`. Unchanged ones come from `cache`.

    The project itself is skipped: its code is in the bundle and imported from there.

    Args:
        sources: the result of `mlapp.bundle.requirement_lines.list_source_requirement_lines`; paths are relative to
            `root`.
        python: the minor version of the image's Python, such as 3.11.

    Raises:
        BundleError: a source does not build, or contains compiled code.
    """
    for source in sources:
        place = resolve_requirement_folder(source, root)
        if place == root.resolve():
            continue
        if place is not None and not place.exists():
            raise BundleError(f"{source} is in the requirements but does not exist.", "Create it, or fix the path.")
        cached_folder = (
            cache
            / hashlib.sha256(
                "\n".join([_fingerprint_source_wheel(source, place), python, uv.read_uv_version()]).encode()
            ).hexdigest()
        )
        if not cached_folder.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            with open_temporary_folder("wheel", cache) as temporary:
                requirement = source if place is None else str(_copy_wheel_source(place, temporary / place.name))
                built_wheel = _build_source_wheel(
                    source, requirement, temporary / "installed", temporary / "wheel", python, image
                )
                with contextlib.suppress(OSError):  # another build has just created it
                    built_wheel.parent.rename(cached_folder)
        (file,) = cached_folder.glob("*.whl")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / file.name)
        name, version = file.name.split("-")[:2]
        yield BuiltWheel(canonicalize_name(name), version, folder / file.name)


def _fingerprint_source_wheel(source: str, place: Path | None) -> str:
    """A key that changes with the source: its URL with the git commit, or the sizes and times of a folder's files."""
    if place is None:
        return source
    files = _list_source_wheel_files(place) if place.is_dir() else [Path()]
    statuses = ((file, (place / file).lstat()) for file in files)
    return "\n".join([str(place), *(f"{file} {status.st_size} {status.st_mtime_ns}" for file, status in statuses)])


def _copy_wheel_source(place: Path, target: Path) -> Path:
    """Copy a source for building, as most build tools write files into it. Includes .git for tools that need it."""
    if place.is_file():
        shutil.copyfile(place, target)
        return target
    for file in _list_source_wheel_files(place):
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(place / file, target / file, follow_symlinks=False)
    if (place / ".git").is_dir():
        shutil.copytree(place / ".git", target / ".git", symlinks=True)
    return target


def _list_source_wheel_files(place: Path) -> list[Path]:
    """The files of a source, also those in `.dockerignore`: a build can need files that images do not, like README."""
    return find_project_files(place, dockerignore=False, refuse_tracked_secrets=False, warn=lambda _: None)


def _build_source_wheel(
    source: str, requirement: str, installed: Path, folder: Path, python: str, image: Image
) -> Path:
    arguments = ["pip", "install", "--quiet", "--no-deps", "--reinstall", "--python-version", python]
    arguments += ["--target", str(installed), requirement]
    uv.run_uv(arguments, folder=installed.parent, image=image, activity=f"Building {source}")
    (info,) = installed.glob("*.dist-info")
    name, version = info.name.removesuffix(".dist-info").split("-")
    if "Root-Is-Purelib: true" not in (info / "WHEEL").read_text(encoding="utf-8"):
        raise BundleError(
            f"{name} contains compiled code and does not come from a package index: {source}.",
            "Publish Linux wheels of it to an index, and add the index to image.extra_index_urls in mlapp.yaml.",
        )
    members = {}
    for file in installed.rglob("*"):
        path = file.relative_to(installed)
        is_local_record = path.parent == Path(info.name) and path.name in LOCAL_RECORDS
        if not file.is_file() or is_local_record or path.name == ".lock" or "__pycache__" in path.parts:
            continue
        if path.parts[0] != "bin":
            members[path.as_posix()] = file.read_bytes()
        elif not _is_source_wheel_script(path.name, info):
            members[f"{name}-{version}.data/scripts/{path.name}"] = file.read_bytes()
    return wheel.pack_wheel(folder, name, version, members)


def _is_source_wheel_script(script: str, info: Path) -> bool:
    """Whether a script comes from entry_points.txt, so that the wheel's installer creates it again."""
    file = info / "entry_points.txt"
    return (
        file.is_file()
        and re.search(rf"^{re.escape(script)}\s*=", file.read_text(encoding="utf-8"), re.MULTILINE) is not None
    )
