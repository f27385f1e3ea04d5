"""Signs new and stored versions, and verifies the signatures that the settings require."""

from __future__ import annotations

from pathlib import Path

from mlapp.errors import ConfigError
from mlapp.store.manifest import Manifest
from mlapp.store.manifests import make_signatures_key
from mlapp.store.numbered_names import append_numbered_key
from mlapp.store.signatures import Signer, join_signatures
from mlapp.store.storage import Storage


class VersionSignatures:
    """Signs and verifies versions. Without a signer, nothing is signed and no signature is required."""

    def __init__(self, storage: Storage, signer: Signer | None) -> None:
        self._storage = storage
        self._signer = signer

    @property
    def is_required(self) -> bool:
        """Whether versions without a valid signature are refused."""
        return self._signer is not None and self._signer.is_required

    def sign_new_version(self, manifest: Manifest, folder: Path) -> Manifest:
        """The manifest of a version that is not stored yet, signed if there is a key."""
        if self._signer is None or not self._signer.can_sign:
            return manifest
        return join_signatures(manifest, [self._signer.sign_version(manifest, folder)])

    def sign_stored_version(self, manifest: Manifest, files: Path, *, keyless: bool) -> None:
        """Add a signature to a version.

        Raises:
            ConfigError: no key to sign with. StoreError: the keyless service refused.
        """
        text = self._require_signer().sign_version(manifest, files, keyless=keyless)
        prefix = make_signatures_key(manifest.app, manifest.version)
        append_numbered_key(self._storage, prefix, text.encode())

    def verify_signatures(self, manifest: Manifest, files: Path) -> None:
        """Check that a version has a valid signature, whether or not the settings require it.

        Raises:
            ConfigError: no trusted signer is configured. StoreError: no signature is valid.
        """
        self._require_signer().require_signature(manifest, files)

    def _require_signer(self) -> Signer:
        if self._signer is None:
            raise ConfigError("This store was opened without keys.", "Open it with the project's settings.")
        return self._signer
