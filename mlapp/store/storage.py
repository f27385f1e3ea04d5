"""The storage interface of a store. Every operation adds or removes whole objects; none modifies one.

A model store needs no more: a version's number and each entry of an alias's history are claimed by creating a key that
does not exist yet. A folder and an object store (with conditional writes) provide the same guarantees.
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
    """Keys are paths with `/`. Every method raises StoreError if the storage cannot be reached, read or written."""

    def create_key(self, key: str, content: bytes | list[Any], *, from_reserve: bool = False) -> bool:
        """Create a key atomically; False if it exists already.

        Args:
            content: in one piece, or a list of bytes and contiguous arrays.
            from_reserve: allow the use of space that is reserved for a full disk, for keys that are needed to free
                space.

        Raises:
            FullError: the disk is full.
        """

    def read_key(self, key: str) -> bytes | None:
        """The content of a key, or None."""

    def read_keys(self, keys: Iterable[str]) -> list[bytes | None]:
        """The content of each key, or None."""

    def list_names(self, prefix: str, after: str = "") -> list[str]:
        """The names directly under a prefix, unordered; of keys, those that sort after `after` if it is given."""

    def list_last_names(self, prefix: str, count: int) -> list[str]:
        """The last `count` names of numbered keys under a prefix; more names before them do no harm, unordered."""

    def upload_folder(self, prefix: str, tell: Reporter | None = None) -> AbstractContextManager[Path]:
        """A folder to write files to; stored under `prefix` if the block ends without an error, otherwise removed."""

    def fetch_folder(
        self, prefix: str, files: Mapping[str, StoredFile], tell: Reporter | None = None, *, fresh: bool = False
    ) -> Path:
        """A local folder with these files of `prefix`, except missing ones.

        Their content is not checked. `fresh` downloads cached files again.
        """

    def list_unfetched(self, prefix: str, files: Mapping[str, StoredFile]) -> list[str]:
        """The paths under a prefix that are neither among these files nor in the folder of `fetch_folder`."""

    def size(self, prefix: str) -> int:
        """The total bytes of everything under a prefix."""

    def delete_prefix(self, prefix: str) -> None:
        """Remove a key, or everything under a prefix, if it exists."""

    def check_writable(self) -> None:
        """Raise StoreError if the storage is not writable."""
