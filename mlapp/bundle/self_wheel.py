"""mlapp itself as a requirement: a version of an index, or, when it was installed from elsewhere, as its own wheel."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

import mlapp
from mlapp.bundle import wheel
from mlapp.distribution import LOCAL, NAME, WHEEL_NAME, version


def is_from_index() -> bool:
    """Whether the mlapp that runs here came from a package index: then its version is enough to get it.

    PEP 610 says so of what pip installed from a folder, a file or git; the version says so of a wheel that is packed
    here.
    """
    distribution = importlib.metadata.distribution(NAME)
    return distribution.read_text("direct_url.json") is None and not distribution.version.endswith(LOCAL)


def pinned_version() -> str:
    """The version that a requirement names. No index can have that of a wheel which is packed here."""
    return version() if is_from_index() else f"{version()}{LOCAL}"


def write_wheel(folder: Path, templates: Path | None = None) -> Path:
    """The mlapp that runs here as a wheel in `folder`: the same code and metadata, so the same bytes each time.

    It is packed from what is imported rather than built from sources, which an installation from a local folder or
    from git may no longer have.

    Args:
        templates: the folder of the templates, for an environment in which `mlapp init` is run.
    """
    distribution = importlib.metadata.distribution(NAME)
    packed = f"{version()}{LOCAL}"
    info = f"{WHEEL_NAME}-{packed}.dist-info"
    metadata = re.sub(
        r"^Version: .*$", f"Version: {packed}", distribution.read_text("METADATA") or "", count=1, flags=re.MULTILINE
    )
    members = dict(_read_package_files())
    members[f"{info}/METADATA"] = metadata.encode()
    members[f"{info}/entry_points.txt"] = (distribution.read_text("entry_points.txt") or "").encode()
    if templates is not None:
        members.update(_files(templates, "mlapp/templates"))
    return wheel.pack_wheel(folder, WHEEL_NAME, packed, members)


def _read_package_files() -> Iterator[tuple[str, bytes]]:
    """Name and content of the package's files, less what only `mlapp init` needs."""
    for name, content in _files(Path(mlapp.__file__).parent, "mlapp"):
        if not name.startswith("mlapp/templates/"):
            yield name, content


def _files(folder: Path, prefix: str) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and "__pycache__" not in relative.parts:
            yield f"{prefix}/{relative.as_posix()}", path.read_bytes()
