"""Writes the requirements of a bundle: locked with hashes, and as wheels for packages that no index has."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.requirements import Requirement

from mlapp import distribution
from mlapp.bundle import bundle, self_wheel, source_wheels
from mlapp.bundle.bundle import BundleError, hash_bundle_file
from mlapp.bundle.requirement_lines import LockedPackage
from mlapp.bundle.requirements import read_declared_requirements
from mlapp.bundle.resolve import resolve_requirements
from mlapp.errors import ConfigError
from mlapp.project import Project
from mlapp.reporting import Reporter


def write_bundle_requirements(
    project: Project,
    libraries: Mapping[str, str],
    python: str,
    staging: Path,
    *,
    extra: str = "",
    upgrade: bool = False,
    warn: Reporter,
) -> tuple[list[LockedPackage], str]:
    """Write the project's requirements to a bundle: requirements.txt, and mlapp's wheel if no index has it.

    Args:
        libraries: library → version, for libraries that are always needed.
        extra: the extra of mlapp, such as `[flyte]`.

    Returns:
        The locked packages, and the file that declared them.

    Raises:
        ConfigError: image.python is not a minor version of Python. UvError: no versions fit.
    """
    image = project.settings.image
    if not all(part.isdecimal() for part in python.split(".")) or python.count(".") != 1:
        raise ConfigError(f"image.python: '{python}' is not a minor version of Python.", "Write it as '3.11'.")
    declared = read_declared_requirements(project.root, image, python)
    if declared is None:
        warn("The project has no requirements.txt, pyproject.toml or lock: the image gets only the model's libraries.")
    elif declared.has_unrelated_mlapp:
        raise BundleError(
            f"{declared.source} names 'mlapp', which is an unrelated package on PyPI.",
            f"Replace it with {distribution.NAME}, with the same extras.",
        )
    requirement, wheels = _require_own_package(extra, staging)
    locked = resolve_requirements(
        declared,
        requirement,
        libraries,
        root=project.root,
        python=python,
        image=image,
        cache=project.root / ".mlapp" / "locks",
        upgrade=upgrade,
    )
    packages = list(locked.packages)
    for source_wheel in source_wheels.build_source_wheels(
        locked.sources,
        staging / bundle.WHEELS,
        root=project.root,
        python=python,
        image=image,
        cache=project.root / ".mlapp" / "wheels",
    ):
        wheels.append(source_wheel.file)
        packages.append(LockedPackage(Requirement(f"{source_wheel.name}=={source_wheel.version}"), ()))
    lines = [
        *(declared.indexes if declared else ()),
        *_copy_local_wheels_to_bundle(declared.folders if declared else (), locked.packages, staging / bundle.WHEELS),
        *(f"./{bundle.WHEELS}/{wheel.name} --hash=sha256:{hash_bundle_file(wheel)}" for wheel in wheels),
        *map(str, locked.packages),
    ]
    (staging / bundle.REQUIREMENTS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return packages, declared.source if declared else "the model"


def _require_own_package(extra: str, staging: Path) -> tuple[str, list[Path]]:
    """The requirement of mlapp, and its wheel if no index has this version."""
    if self_wheel.is_installed_from_index():
        return f"{distribution.NAME}{extra}=={self_wheel.format_own_version()}", []
    wheel = self_wheel.write_own_wheel(staging / bundle.WHEELS)
    return f"{distribution.NAME}{extra} @ {wheel.as_uri()}", [wheel]


def _copy_local_wheels_to_bundle(folders: Iterable[Path], packages: Iterable[LockedPackage], target: Path) -> list[str]:
    """Copy the packages' files from local folders into the bundle; returns the requirements option for them."""
    needed = {digest for package in packages for digest in package.hashes}
    files = [file for folder in folders for file in sorted(folder.iterdir()) if file.is_file()]
    wheels = [file for file in files if hash_bundle_file(file) in needed]
    for file in wheels:
        target.mkdir(exist_ok=True)
        shutil.copyfile(file, target / file.name)
    return [f"--find-links ./{bundle.WHEELS}"] if wheels else []
