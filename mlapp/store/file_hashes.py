"""Computes the SHA-256 of a version's files when they are stored, and checks it when they are used."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlapp.errors import ModelError, StoreError
from mlapp.store import names
from mlapp.store.manifest import Manifest, StoredFile

UNLISTED = "is not in its manifest"


def hash_files(folder: Path) -> dict[str, StoredFile]:
    """The hash and size of every file in `folder`, by relative path.

    Raises:
        ModelError: the saver wrote a link, or a file name that is not valid on every system.
    """
    files = {}
    for name in sorted(list_version_files(folder)):
        entry = _hash_version_file(folder, name) if names.is_relative_path(name) else None
        if entry is None:
            raise ModelError(
                f"The saver wrote {name!r}, which a version cannot contain.",
                "Write regular files without backslashes and colons in their names, and no links.",
            )
        files[name] = entry
    return files


def check_version_files(manifest: Manifest, folder: Path) -> None:
    """Check that `folder` contains exactly the files of the manifest, unchanged.

    Raises:
        StoreError: a file is missing, was changed, is a link, or is not in the manifest.
    """
    for name, stored in manifest.files.items():
        entry = _hash_version_file(folder, name)
        if entry != stored:
            state = "was changed after it was stored"
            if entry is None:
                exists = os.path.lexists(folder / name)
                state = "is a link, a folder or a pipe" if exists else "is missing"
            raise _make_unusable_file_error(manifest, folder / name, name, state)
    for name in list_version_files(folder):
        if name not in manifest.files:
            raise _make_unusable_file_error(manifest, folder / name, name, UNLISTED)


def refuse_files_without_hashes(manifest: Manifest, names: Sequence[str], place: str) -> None:
    """Refuse a version with files that are not in its manifest.

    Args:
        names: the unlisted files.
        place: their location.

    Raises:
        StoreError: `names` is not empty.
    """
    if names:
        raise _make_unusable_file_error(
            manifest, f"{place}/{manifest.app}/{manifest.folder}/{names[0]}", names[0], UNLISTED
        )


def _make_unusable_file_error(manifest: Manifest, path: Path | str, name: str, state: str) -> StoreError:
    return StoreError(
        f"Version {manifest.version} of '{manifest.app}': its file {name} {state} ({path}).",
        "Restore it from a backup, or use another version; do not trust this one.",
    )


def list_version_files(folder: Path) -> Iterator[str]:
    """The paths of all files below a folder; a link to a folder counts as a file."""
    for at, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(at, name))]
        for name in (*files, *links):
            yield Path(at, name).relative_to(folder).as_posix()


def _hash_version_file(folder: Path, name: str) -> StoredFile | None:
    """The hash of a regular file; None if it does not exist, or its path contains a link."""
    path = folder / name
    below = [folder.joinpath(*path.relative_to(folder).parts[:depth]) for depth in range(1, name.count("/") + 1)]
    if any(part.is_symlink() for part in below):
        return None
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            digest, size = hashlib.sha256(), 0
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                size += len(chunk)
        return StoredFile(digest.hexdigest(), size)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError:
        if path.is_symlink():
            return None
        raise
