"""A folder as a layer: a tar that is the same bytes for the same files, streamed without a copy on the disk."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

TIME = 315532800
"""The modification time of every file in a layer: 1980, the earliest that zip files know."""

CHUNK = 1 << 20
END = bytes(2 * tarfile.BLOCKSIZE)


def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """An entry without what differs from machine to machine: a filter for `TarFile.add`."""
    entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = TIME, 0, 0, "", ""
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


class Layer:
    """A layer of an image. `digest` is `sha256:` and that of its tar."""

    digest: str

    def __init__(self, digest: str = "") -> None:
        """A layer that the engine has already."""
        self.digest = digest


class FolderLayer(Layer):
    """The files of `folder` at `target` in the image; all belong to root. Its digest is known once streamed."""

    def __init__(self, folder: Path, target: str) -> None:
        super().__init__()
        self._folder = folder
        self._target = target

    @property
    def size(self) -> int:
        """Bytes of the tar."""
        return sum(len(_header(entry)) + _padded(entry.size) for entry, _ in self._entries()) + len(END)

    def stream(self) -> Iterator[bytes]:
        """The tar; sets the digest at its end."""
        digest = hashlib.sha256()
        for chunk in self._chunks():
            digest.update(chunk)
            yield chunk
        self.digest = f"sha256:{digest.hexdigest()}"

    def _chunks(self) -> Iterator[bytes]:
        gathered = bytearray()
        for entry, path in self._entries():
            gathered += _header(entry)
            if path is not None:
                with path.open("rb") as file:
                    left = entry.size
                    while left:
                        read = file.read(min(CHUNK, left))
                        if not read:
                            raise OSError(None, "became shorter while it was read", str(path))
                        left -= len(read)
                        gathered += read
                        if len(gathered) >= CHUNK:
                            yield bytes(gathered)
                            gathered.clear()
                gathered += bytes(-entry.size % tarfile.BLOCKSIZE)
        yield bytes(gathered) + END

    def _entries(self) -> Iterator[tuple[tarfile.TarInfo, Path | None]]:
        target = Path(self._target)
        for parent in [*reversed(target.parents[:-1]), target]:
            yield _entry(parent.as_posix().lstrip("/"), tarfile.DIRTYPE, 0o755), None
        yield from _within(self._folder, self._target.lstrip("/"))


def _within(folder: Path, name: str) -> Iterator[tuple[tarfile.TarInfo, Path | None]]:
    for found in sorted(os.scandir(folder), key=lambda each: each.name):
        path = f"{name}/{found.name}"
        if found.is_symlink():
            entry = _entry(path, tarfile.SYMTYPE, 0o777)
            entry.linkname = os.readlink(found.path)
            yield entry, None
        elif found.is_dir():
            yield _entry(path, tarfile.DIRTYPE, 0o755), None
            yield from _within(Path(found.path), path)
        else:
            status = found.stat()
            entry = _entry(path, tarfile.REGTYPE, 0o755 if status.st_mode & 0o100 else 0o644)
            entry.size = status.st_size
            yield entry, Path(found.path)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, TIME
    return entry


def _header(entry: tarfile.TarInfo) -> bytes:
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padded(size: int) -> int:
    return size + -size % tarfile.BLOCKSIZE
