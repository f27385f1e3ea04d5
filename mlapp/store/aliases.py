"""The aliases of an app's versions, each with its history."""

from __future__ import annotations

from datetime import datetime, timezone

import msgspec

from mlapp.errors import StoreError, UsageError
from mlapp.store.json_documents import JsonDocuments
from mlapp.store.names import ALIAS, LATEST
from mlapp.store.numbered_names import append_numbered_key, format_number_name, parse_number_names
from mlapp.store.storage import Storage


class AliasEntry(msgspec.Struct, frozen=True):
    """One change of an alias: the target version (None if it was removed), and the time in UTC."""

    version: int | None
    moved: datetime


class Aliases:
    """The aliases in a store. The last entry of an alias's history is its current target."""

    def __init__(self, storage: Storage, documents: JsonDocuments) -> None:
        self._storage = storage
        self._documents = documents

    def list_alias_targets(self, app: str, damaged: list[StoreError] | None = None) -> dict[str, int]:
        """The version of each alias.

        Args:
            damaged: receives the error of each alias that cannot be read. If None, the first error is raised.
        """
        targets = {}
        for alias in self._storage.list_names(f"{app}/aliases"):
            if not is_alias_name(alias):
                continue
            try:
                version = self.find_alias_target(app, alias)
            except StoreError as error:
                if damaged is None:
                    raise
                damaged.append(error)
                continue
            if version is not None:
                targets[alias] = version
        return targets

    def find_alias_target(self, app: str, alias: str) -> int | None:
        """The version that an alias points at, or None."""
        prefix = f"{app}/aliases/{alias}"
        last = max(parse_number_names(self._storage.list_names(prefix)), default=None)
        if last is None:
            return None
        return self._documents.read_document(f"{prefix}/{format_number_name(last)}", AliasEntry).version

    def read_alias_history(self, app: str, alias: str) -> list[AliasEntry]:
        """The changes of an alias, oldest first."""
        prefix = f"{app}/aliases/{alias}"
        return [
            self._documents.read_document(f"{prefix}/{format_number_name(at)}", AliasEntry)
            for at in sorted(parse_number_names(self._storage.list_names(prefix)))
        ]

    def move_alias(self, app: str, alias: str, number: int) -> None:
        """Point an alias at a version, atomically for every reader."""
        entry = msgspec.json.encode(AliasEntry(number, datetime.now(timezone.utc)))
        append_numbered_key(self._storage, f"{app}/aliases/{alias}", entry, from_reserve=True)


def is_alias_name(text: str) -> bool:
    """Whether a text is valid as an alias."""
    return text != LATEST and ALIAS.fullmatch(text) is not None


def require_alias_name(alias: str) -> None:
    """Check the name of an alias.

    Raises:
        UsageError: the name is not valid.
    """
    if not is_alias_name(alias):
        raise UsageError(
            f"'{alias}' cannot be an alias.",
            "Use letters, digits, '.', '_' and '-', a letter first; `latest` is always the newest version.",
        )
