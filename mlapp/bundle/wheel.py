"""Packs a pure Python package as a reproducible wheel."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

EPOCH = (1980, 1, 1, 0, 0, 0)
WHEEL = b"Wheel-Version: 1.0\nGenerator: mlapp\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def pack_wheel(folder: Path, name: str, version: str, members: Mapping[str, bytes]) -> Path:
    """Write a wheel to `folder`; returns its path.

    Args:
        name, version: in the form of the dist-info folder.
        members: path → content of its files; RECORD and WHEEL are added.
    """
    info = f"{name}-{version}.dist-info"
    packed = {**members, f"{info}/WHEEL": WHEEL}
    record = "".join(
        f"{path},{_hash_wheel_content(content)},{len(content)}\n" for path, content in sorted(packed.items())
    )
    packed[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    archived = io.BytesIO()
    with zipfile.ZipFile(archived, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in sorted(packed.items()):
            archive.writestr(zipfile.ZipInfo(path, EPOCH), content, zipfile.ZIP_DEFLATED)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    wheel.parent.mkdir(parents=True, exist_ok=True)
    wheel.write_bytes(archived.getvalue())
    return wheel


def _hash_wheel_content(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"
