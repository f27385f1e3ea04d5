"""Parses the lines of a locked requirements file: packages with exact versions and hashes, and other sources."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

MACHINES = ("x86_64", "aarch64")
PLACE = re.compile(r"(?:(?:-e|--editable)[\s=]+)?([^-\s].*?)(?:#egg=.*|\s+;.*)?")
"""A line with a folder or file instead of a package."""

ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Suffixes of lines that are files, even if they could be the name of a package."""


@dataclass(frozen=True)
class LockedPackage:
    """One package of a lock: its exact requirement and the SHA-256 of its files."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        if self.requirement.url:
            return _parse_wheel_version(PurePosixPath(urlsplit(self.requirement.url).path).name)
        return next(iter(self.requirement.specifier)).version if self.requirement.specifier else ""

    def __str__(self) -> str:
        return " \\\n".join([str(self.requirement), *(f"    --hash=sha256:{digest}" for digest in self.hashes)])


def parse_locked_requirement_lines(text: str) -> Iterator[LockedPackage]:
    """The packages of a requirements file with hashes, except those that come from no index."""
    for line, hashes in _join_continued_lines(text):
        requirement = _parse_requirement_line(line)
        if requirement is not None and not _is_source_requirement_line(requirement):
            yield LockedPackage(requirement, hashes)


def list_source_requirement_lines(text: str) -> Iterator[str]:
    """Requirements that come from no index, in uv's form: a path, or `name @ git+https://…@commit`."""
    for line, _ in _join_continued_lines(text):
        requirement = _parse_requirement_line(line)
        if requirement is None and (match := PLACE.fullmatch(line)):
            yield match.group(1)
        elif requirement is not None and _is_source_requirement_line(requirement):
            requirement.marker = None
            yield str(requirement)


def resolve_requirement_folder(source: str, root: Path) -> Path | None:
    """The folder or file of a source, relative to the project in `root`; None for a git URL."""
    location = expand_requirement_variables(source.partition(" @ ")[2] or source, root)
    if "://" not in location and not location.startswith("file:"):
        return (root / location).resolve()
    address = urlsplit(location)
    return (root / unquote(address.path)).resolve() if address.scheme == "file" else None


def expand_requirement_variables(place: str, root: Path) -> str:
    """Expand environment variables in a location in a requirements file; as in uv, only the form `${NAME}`."""
    variables = {"PROJECT_ROOT": str(root), **os.environ}
    return re.sub(r"\$\{([A-Z0-9_]+)\}", lambda match: variables.get(match.group(1), match.group()), place)


def select_requirements_for_python(packages: list[LockedPackage], python: str) -> Iterator[LockedPackage]:
    """The packages that Linux with this Python needs. Markers are removed unless the machines differ.

    The base image's patch release is unknown, so packages for early patch releases, such as backports, are included.
    """
    late_names = {
        package.name for package in packages if any(_evaluate_requirement_marker(package, f"{python}.99").values())
    }
    for package in packages:
        answers = _evaluate_requirement_marker(package, f"{python}.99" if package.name in late_names else f"{python}.0")
        if not any(answers.values()):
            continue
        if all(answers.values()):
            package.requirement.marker = None
        yield package


def is_requirement_needed_on(package: LockedPackage, python: str, machine: str) -> bool:
    """Whether a machine (`x86_64`, `aarch64`) needs the package."""
    return is_requirement_marker_true(package.requirement.marker, f"{python}.99", machine)


def is_requirement_marker_true(marker: Marker | None, python: str, machine: str, extra: str = "") -> bool:
    """Whether a marker holds on Linux.

    Args:
        python: the full version, such as 3.11.4.
        extra: the requested extra.
    """
    environment: Mapping[str, str] = {
        "python_version": python.rpartition(".")[0],
        "python_full_version": python,
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": machine,
        "extra": extra,
    }
    return marker is None or marker.evaluate(dict(environment))


def _join_continued_lines(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for entry in text.replace("\\\n", " ").splitlines():
        line, *hashes = entry.split("--hash=sha256:")
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip(), tuple(sorted(digest.strip() for digest in hashes))


def _parse_requirement_line(line: str) -> Requirement | None:
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return None
    return None if requirement.name.endswith(ARCHIVES) else requirement


def _is_source_requirement_line(requirement: Requirement) -> bool:
    return bool(requirement.url) and not str(requirement.url).startswith(("https://", "http://"))


def _evaluate_requirement_marker(package: LockedPackage, python: str) -> dict[str, bool]:
    return {machine: is_requirement_marker_true(package.requirement.marker, python, machine) for machine in MACHINES}


def _parse_wheel_version(file: str) -> str:
    try:
        return str(parse_wheel_filename(file)[1] if file.endswith(".whl") else parse_sdist_filename(file)[1])
    except (InvalidWheelFilename, InvalidSdistFilename):
        return ""
