"""A store in a bucket of S3, Google Cloud Storage or Azure, with a local cache of pulled files.

It needs no lock, because the service lets only one writer create a key: `If-None-Match: *` (RFC 9110), or the cloud's
equivalent. A service that does not support this condition is refused before anything is written.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mlapp.errors import StoreError
from mlapp.reporting import Reporter
from mlapp.store import object_clients
from mlapp.store.folder_storage import translate_folder_errors
from mlapp.store.local_copies import iterate_missing_copies
from mlapp.store.manifest import StoredFile
from mlapp.store.numbered_names import PAGE, find_numbered_names_start

T = TypeVar("T")

PART = 8 << 20
"""Bytes per part: larger files are transferred in several parts, with progress."""
AT_ONCE = 8
"""Maximum number of concurrent requests."""
PAUSES = (0.1, 0.5, 2.0)
"""Seconds before each further attempt, in addition to obstore's own retries."""
PROBE = ".writable"


class ObjectStorage:
    """A store in a bucket, with the URL `display_name`, such as s3://bucket/prefix.

    Args:
        client: the obstore client for this prefix.
        cache: folder of pulled and pushed files; can be deleted at any time.
    """

    def __init__(self, client: Any, display_name: str, cache: Path) -> None:
        self._client = client
        self._display_name = display_name
        self._cache = cache
        self._is_conditional = False

    def create_key(self, key: str, content: bytes | list[Any], *, from_reserve: bool = False) -> bool:
        from obstore.exceptions import AlreadyExistsError

        joined: bytes = content if isinstance(content, bytes) else b"".join(content)
        self._require_conditional_object_writes()
        try:
            self._put_object_if_absent(key, joined, passing=(AlreadyExistsError,))
            return True
        except AlreadyExistsError:
            # Equal content means that an earlier attempt succeeded and its response was lost, as contents are unique.
            return self.read_key(key) == joined

    def read_key(self, key: str) -> bytes | None:
        import obstore

        def get_object() -> bytes | None:
            try:
                return bytes(obstore.get(self._client, key).bytes())
            except FileNotFoundError as error:
                if object_clients.is_missing_bucket_error(error):
                    raise
                return None

        return self._retry_object_request(get_object)

    def read_keys(self, keys: Iterable[str]) -> list[bytes | None]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self.read_key, keys))

    def list_names(self, prefix: str, after: str = "") -> list[str]:
        import obstore

        if after:
            return self._list_names_after(prefix, after)
        listing = self._retry_object_request(lambda: obstore.list_with_delimiter(self._client, prefix or None))
        paths = [*listing["common_prefixes"], *(entry["path"] for entry in listing["objects"])]
        names = [path.rpartition("/")[2] for path in paths]
        return [name for name in names if not name.startswith(".")]

    def list_last_names(self, prefix: str, count: int) -> list[str]:
        page = self._list_names_after(prefix, None, pages=1)
        if len(page) < PAGE:
            return page
        return self._list_names_after(prefix, find_numbered_names_start(page, count, partial(self._have_names, prefix)))

    @contextmanager
    def upload_folder(self, prefix: str, progress: Reporter | None = None) -> Iterator[Path]:
        self._require_conditional_object_writes()
        cached = self._cache / prefix
        staging = cached.with_name(f".{cached.name}")
        with translate_folder_errors(staging):
            staging.mkdir(parents=True)
        has_uploads = False
        try:
            yield staging
            for path in sorted(path for path in staging.rglob("*") if path.is_file()):
                has_uploads = True
                self._upload_object(path, f"{prefix}/{path.relative_to(staging).as_posix()}", progress)
            with translate_folder_errors(cached):
                staging.rename(cached)
        except BaseException:  # includes Ctrl-C: incomplete uploads must not remain
            shutil.rmtree(staging, ignore_errors=True)
            if has_uploads:
                with suppress(StoreError):
                    self.delete_prefix(prefix)
            raise

    def fetch_folder(
        self, prefix: str, files: Mapping[str, StoredFile], progress: Reporter | None = None, *, fresh: bool = False
    ) -> Path:
        folder = self._cache / prefix
        with translate_folder_errors(folder):
            for name, stored, path in iterate_missing_copies(folder, files, fresh=fresh):
                self._download_file(f"{prefix}/{name}", path, folder, stored.size, progress)
        return folder

    def list_unfetched(self, prefix: str, files: Mapping[str, StoredFile]) -> list[str]:
        import obstore

        def list_objects() -> list[str]:
            pages = obstore.list(self._client, prefix, chunk_size=PAGE)
            return [entry["path"].removeprefix(f"{prefix}/") for entries in pages for entry in entries]

        # Cloud consoles create an empty object for a folder, with the folder's path.
        folders = {"/".join(name.split("/")[:depth]) for name in files for depth in range(name.count("/") + 1)}
        return sorted(set(self._retry_object_request(list_objects)) - set(files) - folders - {prefix})

    def measure_prefix(self, prefix: str) -> int:
        import obstore

        def measure() -> int:
            pages = obstore.list(self._client, prefix, chunk_size=PAGE)
            return sum(entry["size"] for entries in pages for entry in entries)

        return self._retry_object_request(measure)

    def delete_prefix(self, prefix: str) -> None:
        import obstore

        def delete_objects() -> None:
            with suppress(FileNotFoundError):  # listing a prefix omits the key itself
                obstore.delete(self._client, prefix)
            for entries in obstore.list(self._client, prefix, chunk_size=PAGE):
                with suppress(FileNotFoundError):  # another process deleted it
                    obstore.delete(self._client, [entry["path"] for entry in entries])

        self._retry_object_request(delete_objects)
        shutil.rmtree(self._cache / prefix, ignore_errors=True)

    def check_writable(self) -> None:
        self._is_conditional = False
        self._require_conditional_object_writes()

    def __repr__(self) -> str:
        return self._display_name

    def _list_names_after(self, prefix: str, start: str | None, pages: int | None = None) -> list[str]:
        """The names under a prefix that sort after `start`.

        Args:
            start: None for all names.
            pages: maximum number of requests; None for no limit.
        """
        import obstore

        offset = None if start is None else f"{prefix}/{start}"

        def list_objects() -> list[str]:
            chunks = itertools.islice(obstore.list(self._client, prefix, offset=offset, chunk_size=PAGE), pages)
            return [entry["path"].removeprefix(f"{prefix}/") for entries in chunks for entry in entries]

        return self._retry_object_request(list_objects)

    def _have_names(self, prefix: str, names: list[str]) -> list[bool]:
        """Whether each of some keys under a prefix exists."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return [size is not None for size in pool.map(self._measure_object, [f"{prefix}/{name}" for name in names])]

    def _put_object_if_absent(self, key: str, content: bytes, passing: tuple[type[Exception], ...]) -> None:
        import obstore

        self._retry_object_request(lambda: obstore.put(self._client, key, content, mode="create"), passing)

    def _require_conditional_object_writes(self) -> None:
        """Check once that an existing key cannot be created again. Otherwise two trainers could claim one number."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError

        if self._is_conditional:
            return
        self._retry_object_request(lambda: obstore.put(self._client, PROBE, b""))
        try:
            self._put_object_if_absent(PROBE, b"", passing=(AlreadyExistsError, NotSupportedError))
        except AlreadyExistsError:
            self._is_conditional = True
            return
        except (NotSupportedError, NotImplementedError):
            pass
        raise StoreError(
            f"The model store {self._display_name} does not support conditional writes: trainers would overwrite each "
            "other.",
            "Use one that supports If-None-Match: AWS S3, Google, Azure, Ceph, R2, or a newer release of this one.",
        )

    def _upload_object(self, path: Path, key: str, progress: Reporter | None) -> None:
        import obstore

        size = path.stat().st_size

        def upload_once() -> None:
            with path.open("rb") as file:
                if size <= PART:
                    obstore.put(self._client, key, file.read(), use_multipart=False)
                    return
                transfer = _TransferProgress(f"upload {path.name}", size, progress)
                parts = (transfer.add_transferred_bytes(part) for part in iter(lambda: file.read(PART), b""))
                obstore.put(self._client, key, parts, use_multipart=True, chunk_size=PART, max_concurrency=AT_ONCE)

        self._retry_object_request(upload_once)

    def _download_file(self, key: str, path: Path, folder: Path, size: int, progress: Reporter | None) -> None:
        """Download a file in parts, each with its own retries. The file is renamed when it is complete.

        The temporary file is outside of `folder`, which must contain only requested files.
        """
        import obstore

        if size > PART and self._measure_object(key) != size:  # a manifest can claim any size
            path.write_bytes(b"")
            return
        temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
        transfer = _TransferProgress(f"download {path.name}", size, progress if size > PART else None)
        try:
            with temporary.open("wb") as file, ThreadPoolExecutor(AT_ONCE) as pool:

                def download_part(start: int) -> None:
                    end = min(start + PART, size)
                    part = self._retry_object_request(
                        lambda: obstore.get_range(self._client, key, start=start, end=end)
                    )
                    os.pwrite(file.fileno(), transfer.add_transferred_bytes(bytes(part)), start)

                for future in [pool.submit(download_part, start) for start in range(0, size, PART)]:
                    future.result()
            temporary.rename(path)
        except FileNotFoundError:
            path.unlink(missing_ok=True)
        finally:
            temporary.unlink(missing_ok=True)

    def _measure_object(self, key: str) -> int | None:
        """The size of an object in bytes; None if it does not exist."""
        import obstore

        try:
            return int(self._retry_object_request(lambda: obstore.head(self._client, key))["size"])
        except FileNotFoundError:
            return None

    def _retry_object_request(
        self, request: Callable[[], T], passing: tuple[type[Exception], ...] = (FileNotFoundError,)
    ) -> T:
        """Make an idempotent request, and retry it after transient errors.

        Args:
            passing: exceptions of the request to raise unchanged.
        """
        for pause in (*PAUSES, None):
            try:
                return request()
            except Exception as error:  # those of obstore and of credential providers have no common base
                if isinstance(error, passing) and not object_clients.is_missing_bucket_error(error):
                    raise
                if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                    raise
                if not object_clients.is_transient_bucket_error(error) or pause is None:
                    raise object_clients.translate_bucket_error(error, self._display_name) from None
                time.sleep(pause)
        raise AssertionError("the last pause is None")


class _TransferProgress:
    """Progress of a file, reported in steps of ten percent."""

    def __init__(self, label: str, size: int, progress: Reporter | None) -> None:
        self._label, self._size, self._progress = label, size, progress
        self._bytes = self._tenths = 0

    def add_transferred_bytes(self, part: bytes) -> bytes:
        self._bytes += len(part)
        tenths = self._bytes * 10 // self._size
        if self._progress is not None and tenths > self._tenths:
            self._tenths = tenths
            self._progress(f"{self._label}: {self._bytes / 1e6:.0f} of {self._size / 1e6:.0f} MB")
        return part
