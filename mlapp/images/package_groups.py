"""Split an environment into groups of packages, one per layer: each large package on its own, the others together.

A change of one requirement then changes the layer of one package, and images of different apps share layers in the
engine, in a registry and on the nodes of a cluster.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.utils import canonicalize_name

LARGE = 10 * 1024**2
"""Minimum bytes of a package with its own layer."""

MAX_GROUPS = 16
"""Maximum number of layers for packages. An engine stacks at most about 125 layers."""

OTHERS = "other packages"


@dataclass(frozen=True)
class PackageGroup:
    """Packages that become one layer.

    Attributes:
        title: the package and its version, or OTHERS.
        folder: its part of the environment, with the same paths as in the whole.
        names: the normalized names of its packages.
        fingerprint: hex digest of the packages' lists of files with their hashes.
    """

    title: str
    folder: Path
    names: frozenset[str]
    fingerprint: str


@dataclass(frozen=True)
class _Distribution:
    """An installed package. `files` are relative to site-packages."""

    info: Path
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        """The normalized name."""
        return canonicalize_name(self.info.name.partition("-")[0])

    @property
    def title(self) -> str:
        """The name and the version."""
        return f"{self.name} {self.info.name.removesuffix('.dist-info').partition('-')[2]}"

    @property
    def roots(self) -> set[str]:
        """The first parts of the files' paths."""
        return {file.parts[0] for file in self.files}

    @cached_property
    def size(self) -> int:
        """Bytes of all files."""
        paths = (self.info.parent / file for file in self.files)
        return sum(path.lstat().st_size for path in paths if os.path.lexists(path))


def split_packages_into_groups(environment: Path, packages: Path, target: Path) -> list[PackageGroup]:
    """Move each large package of an environment into its own folder in `target`. The last group has the other packages.

    The order is by size, largest first, so that a change of a small package changes no layer below it.

    Args:
        packages: the environment's site-packages.
    """
    distributions = [_read_grouped_distribution(info) for info in sorted(packages.glob("*.dist-info"))]
    owners: dict[str, int] = defaultdict(int)
    for distribution in distributions:
        for root in distribution.roots:
            owners[root] += 1
    by_size = sorted(distributions, key=lambda distribution: (-distribution.size, distribution.title))
    large = [distribution for distribution in by_size if distribution.size >= LARGE][: MAX_GROUPS - 1]
    groups = []
    for distribution in large:
        folder = target / f"{environment.name}-{distribution.name}"
        fingerprint = _fingerprint_package_group([distribution])
        shared = frozenset(root for root in distribution.roots if owners[root] > 1)
        _move_grouped_distribution(distribution, folder / packages.relative_to(environment), shared)
        groups.append(PackageGroup(distribution.title, folder, frozenset([distribution.name]), fingerprint))
    small = [distribution for distribution in distributions if distribution not in large]
    others = PackageGroup(
        OTHERS, environment, frozenset(distribution.name for distribution in small), _fingerprint_package_group(small)
    )
    return [*groups, others]


def _move_grouped_distribution(distribution: _Distribution, target: Path, shared: frozenset[str]) -> None:
    """Move a distribution's files to another site-packages; folders in `shared` also hold files of others."""
    packages = distribution.info.parent
    target.mkdir(parents=True)
    for root in distribution.roots - shared:
        (packages / root).rename(target / root)
    for file in distribution.files:
        if file.parts[0] in shared and os.path.lexists(packages / file):
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            (packages / file).rename(target / file)


def _read_grouped_distribution(info: Path) -> _Distribution:
    """A distribution, without its scripts, which are outside site-packages."""
    record = info / "RECORD"
    rows = csv.reader(record.read_text(encoding="utf-8").splitlines()) if record.is_file() else ()
    files = (Path(row[0]) for row in rows if row)
    return _Distribution(info, tuple(file for file in files if ".." not in file.parts and not file.is_absolute()))


def _fingerprint_package_group(distributions: Sequence[_Distribution]) -> str:
    digest = hashlib.sha256()
    for distribution in distributions:
        record = distribution.info / "RECORD"
        digest.update(f"{distribution.info.name}\n".encode())
        digest.update(record.read_bytes() if record.is_file() else b"")
    return digest.hexdigest()
