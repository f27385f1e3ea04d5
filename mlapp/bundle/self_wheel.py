"""Provides mlapp itself for a bundle: as a version on an index, or as a wheel if it was installed from elsewhere."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

import mlapp
from mlapp.bundle import wheel
from mlapp.distribution import LOCAL, NAME, WHEEL_NAME, version


def is_installed_from_index() -> bool:
    """Whether the running mlapp was installed from a package index, so that its version is sufficient to install it.

    PEP 610 identifies installations from a folder, a file or git; the version identifies wheels of `write_own_wheel`.
    """
    distribution = importlib.metadata.distribution(NAME)
    return distribution.read_text("direct_url.json") is None and not distribution.version.endswith(LOCAL)


def format_own_version() -> str:
    """The version for a requirement. A wheel of `write_own_wheel` has a version that no index can have."""
    return version() if is_installed_from_index() else f"{version()}{LOCAL}"


def write_own_wheel(folder: Path, templates: Path | None = None) -> Path:
    """Write the running mlapp as a reproducible wheel to `folder`.

    It is packed from the installed files, because the sources of an installation from a folder or git may no longer
    exist.

    Args:
        templates: the folder of the project templates, if the environment needs `mlapp init`.
    """
    distribution = importlib.metadata.distribution(NAME)
    wheel_version = f"{version()}{LOCAL}"
    info = f"{WHEEL_NAME}-{wheel_version}.dist-info"
    metadata = re.sub(
        r"^Version: .*$",
        f"Version: {wheel_version}",
        distribution.read_text("METADATA") or "",
        count=1,
        flags=re.MULTILINE,
    )
    members = dict(_read_self_package_files())
    members[f"{info}/METADATA"] = metadata.encode()
    members[f"{info}/entry_points.txt"] = (distribution.read_text("entry_points.txt") or "").encode()
    if templates is not None:
        members.update(_iterate_self_package_files(templates, "mlapp/templates"))
    return wheel.pack_wheel(folder, WHEEL_NAME, wheel_version, members)


def _read_self_package_files() -> Iterator[tuple[str, bytes]]:
    """Name and content of the package's files, except those that only `mlapp init` needs."""
    for name, content in _iterate_self_package_files(Path(mlapp.__file__).parent, "mlapp"):
        if not name.startswith("mlapp/templates/"):
            yield name, content


def _iterate_self_package_files(folder: Path, prefix: str) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and "__pycache__" not in relative.parts:
            yield f"{prefix}/{relative.as_posix()}", path.read_bytes()
