"""mlapp itself as a requirement: a version of an index, or, when it was installed from elsewhere, as its own wheel."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import mlapp
from mlapp.bundle import wheel
from mlapp.distribution import NAME, WHEEL_NAME, version


def is_from_index() -> bool:
    """Whether the mlapp that runs here came from a package index, by PEP 610: then its version is enough to get it."""
    return importlib.metadata.distribution(NAME).read_text("direct_url.json") is None


def write_wheel(folder: Path) -> Path:
    """The mlapp that runs here as a wheel in `folder`: the same code and metadata, so the same bytes each time.

    It is packed from what is imported rather than built from sources, which an installation from a local folder or
    from git may no longer have.
    """
    distribution = importlib.metadata.distribution(NAME)
    info = f"{WHEEL_NAME}-{version()}.dist-info"
    members = dict(_read_package_files())
    members[f"{info}/METADATA"] = (distribution.read_text("METADATA") or "").encode()
    members[f"{info}/entry_points.txt"] = (distribution.read_text("entry_points.txt") or "").encode()
    return wheel.pack_wheel(folder, WHEEL_NAME, version(), members)


def _read_package_files() -> Iterator[tuple[str, bytes]]:
    """Name and content of the package's files, less what only `mlapp init` needs."""
    package = Path(mlapp.__file__).parent
    for path in package.rglob("*"):
        relative = path.relative_to(package)
        if path.is_file() and "__pycache__" not in relative.parts and relative.parts[0] != "templates":
            yield f"mlapp/{relative.as_posix()}", path.read_bytes()
