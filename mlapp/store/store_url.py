"""Opens the store of the setting `store:`."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from mlapp.config import Store as StoreSettings
from mlapp.data.secrets import redact_secrets
from mlapp.errors import ConfigError, StoreError
from mlapp.store.folder_storage import FolderStorage
from mlapp.store.signatures import Signer
from mlapp.store.store import Store

SCHEMES = ("s3", "gs", "az")
CACHE = Path(".mlapp/cache/models")
"""Folder of pulled versions, in the project's folder. Can be deleted at any time."""
MISTYPED = re.compile(r"(s3|gs|az|file|https?|ftp):(?!//)", re.IGNORECASE)
"""A URL without its two slashes, which would otherwise be the name of a folder."""
SUPPORTED = "Give a folder, or a bucket: s3://…, gs://… or az://…."


def open_store(settings: str | StoreSettings, root: Path, setting: str = "store") -> Store:
    """The store in `store:`, which is a folder, relative to the project's `root`, or a bucket of an object store.

    Args:
        settings: the settings section; or only a URL, without signing and verification of versions.
        setting: the name of the setting in mlapp.yaml, for errors.

    Raises:
        ConfigError: the URL scheme is not supported. StoreError: the path is a file. MissingExtraError: a required
            package is not installed.
    """
    url = settings if isinstance(settings, str) else settings.url
    signer = None if isinstance(settings, str) else Signer(settings, root)
    scheme, separator, _ = url.partition("://")
    if scheme in SCHEMES and separator:
        from mlapp.store import object_clients
        from mlapp.store.object_storage import ObjectStorage

        display_name = url.rstrip("/")
        client = object_clients.connect_bucket(url, setting)
        return Store(ObjectStorage(client, display_name, _make_store_cache_path(root, display_name)), signer)
    if (separator and scheme != "file") or MISTYPED.match(url):
        raise ConfigError(f"{setting}: '{redact_secrets(url)}' has a type that mlapp cannot open.", SUPPORTED)
    folder = (root / url.removeprefix("file://")).expanduser().resolve()
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if not os.path.isdir(existing):
        raise StoreError(f"{setting}: mlapp cannot use {existing}: it is not a folder.", SUPPORTED)
    copies = _make_store_cache_path(root, str(folder)) if signer is not None and signer.is_required else None
    return Store(FolderStorage(folder, copies, setting), signer)


def _make_store_cache_path(root: Path, place: str) -> Path:
    return root / CACHE / hashlib.sha256(place.encode()).hexdigest()[:16]
