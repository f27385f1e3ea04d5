"""Creates files that appear whole or not at all, with few system calls.

A server's thread creates files while requests are answered. At each system call it gives the interpreter back, and then
waits for it again, as the requests wait for the thread.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PIECES_AT_ONCE = 1024
"""Pieces of a file that the system writes in one call (IOV_MAX)."""
RACES = 5
"""Times that a file is created again because another process has deleted its folder meanwhile."""


def create_atomic_file(path: Path, content: bytes | list[Any]) -> bool:
    """Create a file atomically; False if its name is taken."""
    for _ in range(RACES):
        try:
            return _try_to_create_file(path, content)
        except FileNotFoundError:  # the folder is new, or another process has just deleted it
            path.parent.mkdir(parents=True, exist_ok=True)
    return _try_to_create_file(path, content)


def _try_to_create_file(path: Path, content: bytes | list[Any]) -> bool:
    """Create a file in a folder that exists, with few system calls: a server's requests wait for each of them."""
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
    """Write pieces without a copy of them in one piece."""
    for start in range(0, len(pieces), PIECES_AT_ONCE):
        some = pieces[start : start + PIECES_AT_ONCE]
        written = os.writev(handle, some)
        if written < sum(memoryview(piece).nbytes for piece in some):
            rest = memoryview(b"".join(some))[written:]
            while rest:
                rest = rest[os.write(handle, rest) :]


def sync_folder_to_disk(path: Path | str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
