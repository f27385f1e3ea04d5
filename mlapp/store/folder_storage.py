"""A store in a local folder."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlapp.errors import StoreError
from mlapp.reporting import Reporter
from mlapp.store import names
from mlapp.store.atomic_files import create_atomic_file, sync_folder_to_disk
from mlapp.store.file_hashes import list_version_files
from mlapp.store.local_copies import iterate_missing_copies
from mlapp.store.manifest import StoredFile
from mlapp.store.storage import FullError
from mlapp.temporary_folders import create_process_folder

ABANDONED_AFTER = 24 * 3600
"""Seconds after which a temporary file counts as left behind by a killed process."""

FULL = (errno.ENOSPC, errno.EDQUOT)
RESERVE = ".reserve"
"""A file that reserves disk space for keys that are needed to free more space."""
RESERVE_BYTES = 16 * 1024
CHECKED_FOLDERS = 64
"""Maximum number of remembered folders that are inside the store."""
CHECK_RESERVE = 60.0
"""Seconds between two checks of the reserved space."""


class FolderStorage:
    """A store in the folder `root`, with one file per key.

    Content is written to a temporary file, synced, and hard-linked to the key's name. The link is atomic across
    processes: the whole file appears, or the link fails because the name is taken.

    Args:
        copies: the folder to copy a version's files to before they are checked, so that nobody can change them
            afterwards; None to read them in place.
        setting: the setting in mlapp.yaml that names the folder, for errors.
    """

    def __init__(self, root: Path, copies: Path | None = None, setting: str = "store") -> None:
        self.root = root
        self._copies = copies
        self._setting = setting
        self._checked_folders: dict[Path, tuple[int, int]] = {}
        self._reserve_due = -CHECK_RESERVE

    def create_key(self, key: str, content: bytes | list[Any], *, from_reserve: bool = False) -> bool:
        path = self._locate_new_key(key)
        with translate_folder_errors(path, self._setting):
            try:
                is_new = create_atomic_file(path, content)
            except OSError as error:
                if error.errno not in FULL or not from_reserve or not self._release_folder_reserve():
                    raise
                is_new = create_atomic_file(path, content)
                self._reserve_due = 0.0
            if (now := time.monotonic()) >= self._reserve_due:
                self._keep_folder_reserve()
                self._reserve_due = now + CHECK_RESERVE
        return is_new

    def read_key(self, key: str) -> bytes | None:
        path = self._locate_folder_key(key)
        with translate_folder_errors(path, self._setting):
            try:
                with open(path, "rb", opener=_open_without_waiting) as file:
                    return file.read()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def read_keys(self, keys: Iterable[str]) -> list[bytes | None]:
        return [self.read_key(key) for key in keys]

    def list_names(self, prefix: str, after: str = "") -> list[str]:
        path = self._locate_folder_key(prefix)
        with translate_folder_errors(path, self._setting):
            try:
                return [name for name in os.listdir(path) if name > after and not name.startswith(".")]
            except (FileNotFoundError, NotADirectoryError):
                return []

    def list_last_names(self, prefix: str, count: int) -> list[str]:
        return self.list_names(prefix)

    @contextmanager
    def upload_folder(self, prefix: str, progress: Reporter | None = None) -> Iterator[Path]:
        path = self._locate_folder_key(prefix)
        with translate_folder_errors(path, self._setting):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned_folders(path.parent)
            staging = path.parent / f".{path.name}"
            staging.mkdir()
            try:
                yield staging
                for file in staging.rglob("*"):
                    sync_folder_to_disk(file)
                sync_folder_to_disk(staging)
                staging.rename(path)
                sync_folder_to_disk(path.parent)
            except BaseException:  # includes Ctrl-C: an incomplete folder must not remain
                shutil.rmtree(staging, ignore_errors=True)
                raise

    def fetch_folder(
        self, prefix: str, files: Mapping[str, StoredFile], progress: Reporter | None = None, *, fresh: bool = False
    ) -> Path:
        if self._copies is None:
            return self._locate_folder_key(prefix)
        try:
            self._copies.mkdir(parents=True, exist_ok=True)
        except OSError:  # a pod's filesystem is read-only
            self._copies = create_process_folder("models")
        source = self._locate_folder_key(prefix)  # can be a link, to the files that a platform mounts
        folder = self._copies / prefix
        with translate_folder_errors(folder, self._setting):
            for name, _, path in iterate_missing_copies(folder, files, fresh=fresh):
                _copy_regular_file(_join_inside_folder(source, name), path)
        return folder

    def list_unfetched(self, prefix: str, files: Mapping[str, StoredFile]) -> list[str]:
        if self._copies is None:
            return []  # the folder is the prefix
        return sorted(set(list_version_files(self._locate_folder_key(prefix))) - set(files))

    def measure_prefix(self, prefix: str) -> int:
        total = 0
        for path in (self.root / prefix).rglob("*"):
            with suppress(FileNotFoundError):
                total += path.stat().st_size if path.is_file() else 0
        return total

    def delete_prefix(self, prefix: str) -> None:
        path = self._locate_folder_key(prefix)
        with translate_folder_errors(path, self._setting):
            if not path.is_dir() or path.is_symlink():
                path.unlink(missing_ok=True)
                return
            # The rename is atomic, so that only one of two concurrent deletions does the work.
            trash = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            with suppress(FileNotFoundError):
                path.rename(trash)
                shutil.rmtree(trash)
        if self._copies is not None:
            shutil.rmtree(self._copies / prefix, ignore_errors=True)

    def check_writable(self) -> None:
        with translate_folder_errors(self.root, self._setting):
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass

    def __repr__(self) -> str:
        return str(self.root)

    def _locate_folder_key(self, key: str) -> Path:
        """The path of a key.

        Raises:
            StoreError: it is outside the store, because of its name or a link in the path.
        """
        return _join_inside_folder(self.root, key) if key else self.root

    def _locate_new_key(self, key: str) -> Path:
        """The path of a key to create. Remembers checked folders, to save system calls: see `atomic_files`.

        Raises:
            StoreError: it is outside the store, because of its name or a link in the path.
        """
        path = self.root / key
        folder, identity = path.parent, None
        if names.is_relative_path(key):
            with suppress(OSError):  # the folder is new
                status = os.stat(folder)
                identity = status.st_dev, status.st_ino
        if identity is None or self._checked_folders.get(folder) != identity:
            self._locate_folder_key(key)
            if len(self._checked_folders) >= CHECKED_FOLDERS:
                self._checked_folders.clear()
            if identity is not None:
                self._checked_folders[folder] = identity
        return path

    def _release_folder_reserve(self) -> bool:
        """Free the reserved space, as a deletion on a full disk also has to write a file. False if there is none."""
        try:
            (self.root / RESERVE).unlink()
        except FileNotFoundError:
            return False
        return True

    def _keep_folder_reserve(self) -> None:
        path = self.root / RESERVE
        if not path.exists():
            with suppress(OSError), path.open("xb") as file:
                try:
                    file.write(os.urandom(RESERVE_BYTES))
                except OSError:
                    path.unlink(missing_ok=True)
                    raise


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a regular file, without waiting for the writer of a pipe.

    Raises:
        OSError: it is a pipe or a device.
    """
    handle = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    return handle


def _join_inside_folder(folder: Path, name: str) -> Path:
    """The path of a name below a folder.

    Raises:
        StoreError: it is outside the folder, because of its name or a link in the path.
    """
    path = folder / name
    is_below = Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder))
    if not is_below or not names.is_relative_path(name):
        raise StoreError(
            f"{name!r} is not a path inside the model store {folder}.",
            "Do not trust the file that names it: the path leads outside the store.",
        )
    return path


def _copy_regular_file(source: Path, target: Path) -> None:
    """Copy a file if it exists and is regular. Otherwise the later check of hashes reports it."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with (
            open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file,
            temporary.open("xb") as copy,
        ):
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                shutil.copyfileobj(file, copy, 1 << 20)
        temporary.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def translate_folder_errors(path: Path, setting: str = "store") -> Iterator[None]:
    """Translate OSError to StoreError.

    Args:
        setting: the setting in mlapp.yaml that names the folder.
    """
    try:
        yield
    except OSError as error:
        todo = f"Check the folder's permissions, or set `{setting}:` in mlapp.yaml to another folder."
        error_type = StoreError
        if error.errno in FULL:
            error_type, todo = FullError, "Free some space: `mlapp models prune --keep 3` deletes old versions."
        elif error.errno == errno.ENOENT:
            todo = "Another process changed the store: run the command again."
        place = "The model store" if setting == "store" else f"The folder of `{setting}:`"
        raise error_type(f"{place} cannot use {error.filename or path}: {error.strerror or error}.", todo) from error


def _remove_abandoned_folders(folder: Path) -> None:
    limit = time.time() - ABANDONED_AFTER
    for path in folder.glob(".*"):
        with suppress(OSError):
            if path.stat().st_mtime < limit:
                shutil.rmtree(path)
