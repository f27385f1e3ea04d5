"""Temporary folders that do not outlive their process, even if it is killed.

Each folder is locked while its process runs. A process that creates one first removes the folders that nobody locks:
their processes were killed. The system releases the lock of a process that ends in any way. Where folders cannot be
locked, such as on NFS, those of killed processes stay.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path

NAME = re.compile(r"\.?mlapp-tmp-[a-z]+-[a-z0-9_]{8}")


def create_process_folder(purpose: str, *, keep_after_exec: bool = False) -> Path:
    """Create a folder that is removed when this process exits. A forked child does not remove it.

    Args:
        purpose: a word in lowercase, for the folder's name.
        keep_after_exec: whether the folder stays locked when this process is replaced by another program.
    """
    folder, lock = _create_locked_folder(purpose, tempfile.gettempdir())
    os.set_inheritable(lock, keep_after_exec)
    atexit.register(_remove_own_folder, folder, os.getpid())
    return folder


def is_process_folder(folder: Path) -> bool:
    """Whether it is one of `create_process_folder`, in this process or another."""
    return NAME.fullmatch(folder.name) is not None


def share_inherited_folder(folder: Path) -> None:
    """Lock a folder of the program that this one replaced, and remove it at exit if no other program shares it.

    A forked child does not share it, unless it is replaced by a program that calls this too.
    """
    lock = _find_inherited_descriptor(folder)
    if lock is None:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(lock, False)
    with suppress(OSError):  # NFS refuses to lock a folder: then it stays
        fcntl.flock(lock, fcntl.LOCK_SH)
    os.register_at_fork(after_in_child=partial(os.close, lock))
    atexit.register(_release_shared_folder, folder, lock, os.getpid())


@contextmanager
def open_temporary_folder(purpose: str, parent: Path | None = None) -> Iterator[Path]:
    """A folder that is removed after the `with` block. The block may rename it to keep it.

    Args:
        purpose: a word in lowercase, for the folder's name.
        parent: the folder to create it in, where it is hidden; by default the system's folder for temporary files.
    """
    if parent is None:
        folder, lock = _create_locked_folder(purpose, tempfile.gettempdir())
    else:
        folder, lock = _create_locked_folder(purpose, str(parent), hidden=".")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _create_locked_folder(purpose: str, root: str, hidden: str = "") -> tuple[Path, int]:
    """A new folder, and the file descriptor that locks it."""
    _remove_abandoned_folders(root)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{hidden}mlapp-tmp-{purpose}-", dir=root))
        with suppress(FileNotFoundError):  # another process found it before it was locked
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # NFS refuses to lock a folder: then no process can lock and remove it
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


@cache
def _remove_abandoned_folders(root: str) -> None:
    """Remove this user's folders that no process locks. Once in a process is enough."""
    with suppress(PermissionError):  # a place where this user can create folders, but not list them
        for entry in os.scandir(root):
            if NAME.fullmatch(entry.name):
                _remove_abandoned_folder(entry.path)


def _remove_abandoned_folder(folder: str) -> None:
    with suppress(OSError):  # another process locks or removes it
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_uid == os.geteuid():
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _remove_own_folder(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _find_inherited_descriptor(folder: Path) -> int | None:
    status = folder.stat()
    for descriptor in map(int, os.listdir("/dev/fd")):
        with suppress(OSError):  # it was the descriptor of this list
            if os.path.samestat(os.fstat(descriptor), status):
                return descriptor
    return None


def _release_shared_folder(folder: Path, lock: int, owner: int) -> None:
    if os.getpid() == owner:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)  # a child that was forked just now may not have closed it yet
        os.close(lock)
        _remove_abandoned_folder(str(folder))
