"""A folder as a layer: a tar that is the same bytes for the same files."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

TIME = 315532800
"""The modification time of every file in a layer: 1980, the earliest that zip files know."""


@dataclass(frozen=True)
class Layer:
    """A layer: `digest` is `sha256:` and that of its tar. `tar` is None when the engine has it already."""

    digest: str
    tar: Path | None = None


def write(folder: Path, target: str, tar: Path) -> Layer:
    """Write the files of `folder` as a layer that puts them at `target` in the image; root owns them, all may read."""
    with tar.open("wb") as raw:
        hashed: Any = _Hashed(raw)
        with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as archive:
            for parent in reversed([target, *_parents(target)]):
                archive.addfile(_entry(parent.lstrip("/"), tarfile.DIRTYPE, 0o755))
            _add(archive, folder, target.lstrip("/"))
    return Layer(f"sha256:{hashed.digest.hexdigest()}", tar)


def _add(archive: tarfile.TarFile, folder: Path, name: str) -> None:
    for found in sorted(os.scandir(folder), key=lambda each: each.name):
        path = f"{name}/{found.name}"
        if found.is_symlink():
            entry = _entry(path, tarfile.SYMTYPE, 0o777)
            entry.linkname = os.readlink(found.path)
            archive.addfile(entry)
        elif found.is_dir():
            archive.addfile(_entry(path, tarfile.DIRTYPE, 0o755))
            _add(archive, Path(found.path), path)
        else:
            status = found.stat()
            entry = _entry(path, tarfile.REGTYPE, 0o755 if status.st_mode & 0o100 else 0o644)
            entry.size = status.st_size
            with open(found.path, "rb") as file:
                archive.addfile(entry, file)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, TIME
    return entry


def _parents(target: str) -> Iterator[str]:
    for parent in Path(target).parents:
        if parent != parent.parent:
            yield parent.as_posix()


class _Hashed:
    """A file that hashes what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, content: Any) -> int:
        self.digest.update(content)
        return self.file.write(content)
