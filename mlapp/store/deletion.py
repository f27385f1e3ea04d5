"""Deletes a version: marks it as deleted, then deletes its files."""

from __future__ import annotations

from datetime import datetime, timezone

import msgspec

from mlapp.errors import UsageError
from mlapp.store.manifests import make_signatures_key
from mlapp.store.numbered_names import format_number_name
from mlapp.store.storage import FullError, Storage


def delete_version(storage: Storage, app: str, number: int, folder: str | None) -> None:
    """Mark a version as deleted and delete its files and signatures.

    Args:
        folder: the version's folder; None if its manifest is unreadable, so that its files stay.

    Raises:
        UsageError: another process has just deleted it. StoreError: the store is unreachable.
    """
    mark = f"{app}/deleted/{format_number_name(number)}", msgspec.json.encode({"deleted": datetime.now(timezone.utc)})
    try:
        is_ours = storage.create_key(*mark, from_reserve=True)
    except FullError:
        # Delete the files first, because the mark needs their space.
        if folder is None:
            raise
        storage.delete_prefix(f"{app}/{folder}")
        is_ours = storage.create_key(*mark)
    if folder is not None:
        storage.delete_prefix(f"{app}/{folder}")
    storage.delete_prefix(make_signatures_key(app, number))
    if not is_ours:
        raise UsageError(f"Version {number} of '{app}' was deleted by another process.", "See `mlapp models list`.")
