"""The storage interface of a store. Every operation adds or removes whole objects; none modifies one.

This is sufficient for a model store, because creating a key that does not exist yet claims a version's number, or the
next entry of an alias's history. A folder and an object store with conditional writes provide the same guarantees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from mlapp.errors import StoreError
from mlapp.reporting import Reporter
from mlapp.store.manifest import StoredFile


class RequestError(StoreError):
    """A request to a bucket failed. A later one can succeed."""


class FullError(StoreError):
    """The storage has no space left."""


class Storage(Protocol):
    """A storage of keys, which are paths with `/`.

    Every method raises StoreError if the storage cannot be reached, read or written.
    """

    def create_key(self, key: str, content: bytes | list[Any], *, from_reserve: bool = False) -> bool:
        """Create a key atomically; False if it exists already.

        Args:
            content: bytes, or a list of bytes and contiguous arrays.
            from_reserve: use reserved space if the disk is full. For keys that are needed to free space.

        Raises:
            FullError: the disk is full.
        """

    def read_key(self, key: str) -> bytes | None:
        """The content of a key; None if it does not exist."""

    def read_keys(self, keys: Iterable[str]) -> list[bytes | None]:
        """The content of each key; None for keys that do not exist."""

    def list_names(self, prefix: str, after: str = "") -> list[str]:
        """The names directly under a prefix, unordered.

        Args:
            after: only names of keys that sort after this one.
        """

    def list_last_names(self, prefix: str, count: int) -> list[str]:
        """At least the last `count` names of numbered keys under a prefix, unordered; can include earlier names."""

    def upload_folder(self, prefix: str, progress: Reporter | None = None) -> AbstractContextManager[Path]:
        """A folder for new files, which is stored under `prefix` at the end of the block, or removed after an error."""

    def fetch_folder(
        self, prefix: str, files: Mapping[str, StoredFile], progress: Reporter | None = None, *, fresh: bool = False
    ) -> Path:
        """A local folder with these files of `prefix`. Missing files are skipped, and the content is not checked.

        Args:
            progress: receives a line about the transfer.
            fresh: replace local copies.
        """

    def list_unfetched(self, prefix: str, files: Mapping[str, StoredFile]) -> list[str]:
        """The paths under a prefix that are not among these files and that `fetch_folder` does not return."""

    def measure_prefix(self, prefix: str) -> int:
        """The total bytes of everything under a prefix."""

    def delete_prefix(self, prefix: str) -> None:
        """Remove a key, or everything under a prefix, if it exists."""

    def check_writable(self) -> None:
        """Raise StoreError if the storage is not writable."""
