"""The interface of a place that holds a store. Every primitive adds or removes whole objects; none changes one.

A model store needs no more: a version's number and each entry of an alias' history are claimed by
creating a key that nobody else has. A folder and an object store (with conditional writes) give the same guarantees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from mlapp.errors import StoreError
from mlapp.reporting import Reporter
from mlapp.store.manifest import StoredFile


class FullError(StoreError):
    """The place has no space left."""


class Storage(Protocol):
    """Keys are paths with `/`. Every method raises StoreError when the place cannot be reached, read or written."""

    def create_key(self, key: str, content: bytes, *, from_reserve: bool = False) -> bool:
        """Write a key, whole or not at all; False if it exists already.

        Args:
            from_reserve: the key frees space, or is needed to: it may use what is set aside for a full disk.

        Raises:
            FullError: the disk is full.
        """

    def read_key(self, key: str) -> bytes | None:
        """The content of a key, or None."""

    def read_keys(self, keys: Iterable[str]) -> list[bytes | None]:
        """The content of each key, or None."""

    def list_names(self, prefix: str) -> list[str]:
        """The names directly under a prefix, in no order."""

    def upload_folder(self, prefix: str, tell: Reporter | None = None) -> AbstractContextManager[Path]:
        """A folder to write files into; they are under `prefix` if the block ends without an error, else removed."""

    def fetch_folder(
        self, prefix: str, files: Mapping[str, StoredFile], tell: Reporter | None = None, *, fresh: bool = False
    ) -> Path:
        """A local folder that holds these files of `prefix`, but for those that are lost.

        Their content is not checked. `fresh` fetches again what was fetched before.
        """

    def list_unfetched(self, prefix: str, files: Mapping[str, StoredFile]) -> list[str]:
        """The paths below a prefix that are none of these files and are not in the folder of `fetch_folder`."""

    def size(self, prefix: str) -> int:
        """The bytes of everything under a prefix."""

    def delete_prefix(self, prefix: str) -> None:
        """Remove a key, or everything under a prefix; nothing if it is not there."""

    def check_writable(self) -> None:
        """Raise StoreError if nothing could be written."""
