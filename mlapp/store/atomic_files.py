"""Creates files atomically, with few system calls.

A background thread of a server creates files while other threads answer requests. Each system call releases the GIL,
and reacquiring it delays both the background thread and the requests.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PIECES_AT_ONCE = 1024
"""Maximum number of buffers that one call of writev accepts (IOV_MAX)."""
RACES = 5
"""Maximum number of retries after another process has deleted the file's folder."""


def create_atomic_file(path: Path, content: bytes | list[Any]) -> bool:
    """Create a file atomically; False if its name is taken."""
    for _ in range(RACES):
        try:
            return _try_to_create_file(path, content)
        except FileNotFoundError:  # the folder is new, or another process has just deleted it
            path.parent.mkdir(parents=True, exist_ok=True)
    return _try_to_create_file(path, content)


def _try_to_create_file(path: Path, content: bytes | list[Any]) -> bool:
    """Create a file in an existing folder; False if its name is taken."""
    folder, name = os.path.split(path)
    temporary = f"{folder}/.{name}.{uuid.uuid4().hex}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        try:
            _write_pieces(handle, [content] if isinstance(content, bytes) else content)
            os.fsync(handle)
        finally:
            os.close(handle)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    with suppress(FileNotFoundError):
        sync_folder_to_disk(folder)
    return True


def _write_pieces(handle: int, pieces: Sequence[Any]) -> None:
    """Write pieces without joining them in memory."""
    for start in range(0, len(pieces), PIECES_AT_ONCE):
        batch = pieces[start : start + PIECES_AT_ONCE]
        written = os.writev(handle, batch)
        if written < sum(memoryview(piece).nbytes for piece in batch):
            rest = memoryview(b"".join(batch))[written:]
            while rest:
                rest = rest[os.write(handle, rest) :]


def sync_folder_to_disk(path: Path | str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
