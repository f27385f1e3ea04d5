"""The SHA-256 of a version's files: taken when they are stored, checked when they are used."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mlapp.errors import StoreError
from mlapp.store.manifest import Manifest, StoredFile


def hash_files(folder: Path) -> dict[str, StoredFile]:
    """Path below `folder` → hash and size, of every file there."""
    files = {}
    for path in sorted(folder.rglob("*")):
        hashed = _hash_file(path) if path.is_file() else None
        if hashed is not None:
            files[path.relative_to(folder).as_posix()] = hashed
    return files


def check_files(manifest: Manifest, folder: Path) -> None:
    """See that the files in `folder` are those of the manifest.

    Raises:
        StoreError: one is missing, or was changed.
    """
    for name, stored in manifest.files.items():
        found = _hash_file(folder / name)
        if found is None or found.sha256 != stored.sha256:
            state = "is missing" if found is None else "was changed after it was stored"
            raise StoreError(
                f"Version {manifest.version} of '{manifest.app}': its file {name} {state} ({folder / name}).",
                "Restore it from a backup, or use another version; do not trust this one.",
            )


def _hash_file(path: Path) -> StoredFile | None:
    try:
        with path.open("rb") as file:
            digest, size = hashlib.sha256(), 0
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                size += len(chunk)
        return StoredFile(digest.hexdigest(), size)
    except FileNotFoundError:
        return None
