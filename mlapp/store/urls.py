"""From the `store:` setting to a store."""

from __future__ import annotations

from pathlib import Path

from mlapp.errors import ConfigError
from mlapp.store.folder import FolderStorage
from mlapp.store.store import Store


def open_store(url: str, root: Path) -> Store:
    """The store that `store:` names: a folder, relative to the project's `root`.

    Raises:
        ConfigError: a URL of a kind that mlapp cannot open.
    """
    scheme, separator, _ = url.partition("://")
    if separator and scheme != "file":
        raise ConfigError(f"store: '{url}' is of a kind that mlapp cannot open.", "Give a folder.")
    return Store(FolderStorage((root / url.removeprefix("file://")).expanduser().resolve()))
