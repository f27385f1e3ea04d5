"""A store in a local folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from mlapp.errors import StoreError
from mlapp.store.manifest import StoredFile
from mlapp.store.storage import Tell

ABANDONED = 24 * 3600
"""Seconds after which a temporary file counts as left by a process that was killed."""


class FolderStorage:
    """Files under `root`. A key is written beside its place, synced, and linked to its name: the link either makes
    the whole file appear or fails because the name is taken, in any process, at any instant.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def create_key(self, key: str, content: bytes) -> bool:
        path = self.root / key
        with translate_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}"
            try:
                with temporary.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    return False
            finally:
                temporary.unlink(missing_ok=True)
            _sync_to_disk(path.parent)
        return True

    def read_key(self, key: str) -> bytes | None:
        path = self.root / key
        with translate_os_errors(path):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def read_keys(self, keys: Iterable[str]) -> list[bytes | None]:
        return [self.read_key(key) for key in keys]

    def list_names(self, prefix: str) -> list[str]:
        path = self.root / prefix
        with translate_os_errors(path):
            try:
                return [name for name in os.listdir(path) if not name.startswith(".")]
            except (FileNotFoundError, NotADirectoryError):
                return []

    @contextmanager
    def upload_folder(self, prefix: str, tell: Tell | None = None) -> Iterator[Path]:
        path = self.root / prefix
        with translate_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path.parent)
            staging = path.parent / f".{path.name}"
            staging.mkdir()
            try:
                yield staging
                for file in staging.rglob("*"):
                    _sync_to_disk(file)
                _sync_to_disk(staging)
                staging.rename(path)
                _sync_to_disk(path.parent)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise

    def fetch_folder(
        self, prefix: str, files: Mapping[str, StoredFile], tell: Tell | None = None, *, fresh: bool = False
    ) -> Path:
        return self.root / prefix

    def delete_prefix(self, prefix: str) -> None:
        path = self.root / prefix
        with translate_os_errors(path):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def check_writable(self) -> None:
        with translate_os_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass

    def __repr__(self) -> str:
        return str(self.root)


@contextmanager
def translate_os_errors(path: Path) -> Iterator[None]:
    """An error of the operating system as ours."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"The model store cannot use {error.filename or path}: {error.strerror or error}.",
            "Check the folder's permissions and free space, or set `store:` in mlapp.yaml to another folder.",
        ) from error


def _sync_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_abandoned(folder: Path) -> None:
    limit = time.time() - ABANDONED
    for path in folder.glob(".*"):
        with suppress(OSError):
            if path.stat().st_mtime < limit:
                shutil.rmtree(path)
