"""Reads the JSON documents of a store, and refuses those that are damaged or from a newer mlapp."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from mlapp import distribution
from mlapp.errors import StoreError
from mlapp.store.manifest import FORMAT, Manifest
from mlapp.store.storage import Storage

Struct = TypeVar("Struct", bound=msgspec.Struct)

_FORMAT_KEY = "store.json"


class _Format(msgspec.Struct, frozen=True):
    format: int


class JsonDocuments:
    """The documents in a storage. Every method raises StoreError if a document is damaged or from a newer mlapp."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def check_format(self) -> None:
        """Check that this mlapp supports the store's format."""
        content = self._storage.read_key(_FORMAT_KEY)
        if content is not None:
            self.decode_document(_FORMAT_KEY, content, _Format)

    def write_format(self) -> None:
        """Record the format in a new store."""
        self._storage.create_key(_FORMAT_KEY, msgspec.json.encode(_Format(FORMAT)))

    def read_document(self, key: str, kind: type[Struct]) -> Struct:
        """One document, which must exist."""
        return self.decode_document(key, self._storage.read_key(key), kind)

    def decode_document(self, key: str, content: bytes | None, kind: type[Struct]) -> Struct:
        """Decode the content of a key. The content is None if the key does not exist."""
        if content is None:
            raise StoreError(f"{key} is missing from the model store {self._storage!r}.", "Restore it from a backup.")
        try:
            raw = msgspec.json.decode(content)
            if kind in (Manifest, _Format):
                self._require_known_store_format(raw.get("format"), key)
            return msgspec.convert(raw, kind)
        except (msgspec.MsgspecError, AttributeError, UnicodeDecodeError, RecursionError) as error:
            raise StoreError(
                f"{key} of the model store {self._storage!r} is damaged: {error}.", _advise_json_document_repair(key)
            ) from None

    def _require_known_store_format(self, format_number: object, key: str) -> None:
        if isinstance(format_number, int) and format_number > FORMAT:
            raise StoreError(
                f"The model store {self._storage!r} is from a newer mlapp: "
                f"{key} has format {format_number}; this mlapp reads formats up to {FORMAT}.",
                f"Upgrade: pip install --upgrade {distribution.NAME}.",
            )


def _advise_json_document_repair(key: str) -> str:
    if key == _FORMAT_KEY:
        return f'Write {{"format": {FORMAT}}} into it, or restore it from a backup; the versions are not in it.'
    if "/aliases/" in key:
        return "Restore it from a backup, or move the alias again: `mlapp models promote VERSION ALIAS`."
    return "Restore it from a backup; do not use this version until then."
