"""The model store: immutable versions that are created atomically, and aliases that point at them."""

from mlapp.store.manifest import Manifest, StoredFile
from mlapp.store.signatures import Signer
from mlapp.store.store import ModelVersion, Store
from mlapp.store.store_url import open_store

__all__ = ["Manifest", "ModelVersion", "Signer", "Store", "StoredFile", "open_store"]
