"""mlapp itself as a requirement: a version of an index, or, when it was installed from elsewhere, as its own wheel."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import mlapp

EPOCH = (1980, 1, 1, 0, 0, 0)


def is_from_index() -> bool:
    """Whether the mlapp that runs here came from a package index, by PEP 610: then its version is enough to get it."""
    return importlib.metadata.distribution("mlapp").read_text("direct_url.json") is None


def version() -> str:
    return importlib.metadata.version("mlapp")


def write_wheel(folder: Path) -> Path:
    """The mlapp that runs here as a wheel in `folder`: the same code and metadata, so the same bytes each time.

    It is packed from what is imported rather than built from sources, which an installation from a local folder or
    from git may no longer have.
    """
    distribution = importlib.metadata.distribution("mlapp")
    info = f"mlapp-{version()}.dist-info"
    members = dict(_package())
    members[f"{info}/METADATA"] = (distribution.read_text("METADATA") or "").encode()
    members[f"{info}/entry_points.txt"] = (distribution.read_text("entry_points.txt") or "").encode()
    members[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: mlapp\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},{_hash(content)},{len(content)}\n" for name, content in sorted(members.items()))
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(members.items()):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
    wheel = folder / f"mlapp-{version()}-py3-none-any.whl"
    wheel.parent.mkdir(parents=True, exist_ok=True)
    wheel.write_bytes(packed.getvalue())
    return wheel


def _package() -> Iterator[tuple[str, bytes]]:
    """Name and content of the package's files, less what only `mlapp init` needs."""
    package = Path(mlapp.__file__).parent
    for path in package.rglob("*"):
        relative = path.relative_to(package)
        if path.is_file() and "__pycache__" not in relative.parts and relative.parts[0] != "templates":
            yield f"mlapp/{relative.as_posix()}", path.read_bytes()


def _hash(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"
