"""The JSON documents of a store: read, and refused when they are damaged or from a newer mlapp."""

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
    """The documents in a storage. Every method raises StoreError when one is damaged or from a newer mlapp."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def check_format(self) -> None:
        """See that this mlapp knows the store's format."""
        content = self._storage.read_key(_FORMAT_KEY)
        if content is not None:
            self._require_known_format(msgspec.json.decode(content).get("format"), _FORMAT_KEY)

    def write_format(self) -> None:
        """Say in a new store what its format is."""
        self._storage.create_key(_FORMAT_KEY, msgspec.json.encode(_Format(FORMAT)))

    def read_document(self, key: str, kind: type[Struct]) -> Struct:
        """One document that must be there."""
        return self._decode_document(key, self._storage.read_key(key), kind)

    def read_documents(self, keys: list[str], kind: type[Struct]) -> list[Struct]:
        """Several documents that must be there, in the order of `keys`."""
        contents = self._storage.read_keys(keys)
        return [self._decode_document(key, content, kind) for key, content in zip(keys, contents, strict=True)]

    def _decode_document(self, key: str, content: bytes | None, kind: type[Struct]) -> Struct:
        if content is None:
            raise StoreError(f"The model store {self._storage!r} has lost {key}.", "Restore it from a backup.")
        try:
            raw = msgspec.json.decode(content)
            if kind is Manifest:
                self._require_known_format(raw.get("format"), key)
            return msgspec.convert(raw, kind)
        except (msgspec.MsgspecError, AttributeError) as error:
            raise StoreError(
                f"{key} of the model store {self._storage!r} is damaged: {error}", "Restore it from a backup."
            ) from None

    def _require_known_format(self, found: object, key: str) -> None:
        if not isinstance(found, int) or found > FORMAT:
            raise StoreError(
                f"The model store {self._storage!r} is from a newer mlapp: "
                f"{key} has format {found}, known is {FORMAT}.",
                f"Upgrade: pip install --upgrade {distribution.NAME}.",
            )
