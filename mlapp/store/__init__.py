"""The model store: versions that are immutable and appear whole or not at all, and aliases that name them."""

from mlapp.store.manifest import Manifest, StoredFile
from mlapp.store.signatures import Signer
from mlapp.store.store import ModelVersion, Store
from mlapp.store.store_url import open_store

__all__ = ["Manifest", "ModelVersion", "Signer", "Store", "StoredFile", "open_store"]
