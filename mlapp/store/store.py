"""Versions and aliases on top of a Storage.

store.json                              the format
<app>/versions/000003.json              a version's manifest; creating it creates the version
<app>/deleted/000003.json               marks a deleted version: its number is never reused
<app>/files/<id>/…                      a version's files, complete before its manifest exists
<app>/signatures/000003/000001.json     a signature that was added after the version
<app>/aliases/<name>/000002.json        the history of an alias; the last entry is its current target
<app>/released/000003.json              marks a held version that can be `latest`
<app>/monitor/…                         counts, log and truths (mlapp.monitoring.place), if no other place is set
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mlapp.errors import StoreError, UsageError
from mlapp.model import TrainedModel
from mlapp.provenance import GitState
from mlapp.reporting import Reporter
from mlapp.store.aliases import AliasEntry, Aliases, require_alias_name
from mlapp.store.deletion import delete_version
from mlapp.store.file_hashes import check_version_files, hash_files, refuse_files_without_hashes
from mlapp.store.json_documents import JsonDocuments
from mlapp.store.manifest import Manifest
from mlapp.store.manifests import Manifests, make_manifest
from mlapp.store.names import APP, LATEST
from mlapp.store.references import CHALLENGER, References
from mlapp.store.signatures import Signer
from mlapp.store.storage import Storage
from mlapp.store.version_signatures import VersionSignatures


@dataclass(frozen=True)
class ModelVersion:
    """A version with its local files in the folder `files`, which match the manifest."""

    manifest: Manifest
    files: Path

    @property
    def app(self) -> str:
        return self.manifest.app

    @property
    def version(self) -> int:
        return self.manifest.version


class Store:
    """The versions and aliases of any number of apps.

    Every method raises StoreError if the store is unreachable, from a newer mlapp, or damaged.
    """

    def __init__(self, storage: Storage, signer: Signer | None = None) -> None:
        self.storage = storage
        self._documents = JsonDocuments(storage)
        self._manifests = Manifests(storage, self._documents)
        self._aliases = Aliases(storage, self._documents)
        self._references = References(storage, self._manifests, self._aliases)
        self._signatures = VersionSignatures(storage, signer)

    def check_writable(self) -> None:
        """Check that the store is writable, before a long training whose model could not be saved."""
        self._documents.check_format()
        self.storage.check_writable()

    def put(
        self,
        trained: TrainedModel,
        *,
        git: GitState | None = None,
        origin: Mapping[str, str] | None = None,
        tuning: Mapping[str, Any] | None = None,
        progress: Reporter | None = None,
    ) -> ModelVersion:
        """Store a trained model as the next version.

        The files are complete before the manifest is created, and creating the manifest creates the version: a process
        that dies in between leaves no version behind. Of two processes that claim the same number, one gets the next.

        Raises:
            ModelError, UserCodeError: the model cannot be saved. StoreError: no space, no permission.
        """
        app = trained.pipeline.name
        self._documents.check_format()
        self._documents.write_format()
        identity = uuid.uuid4().hex
        with self.storage.upload_folder(f"{app}/files/{identity}", progress) as folder:
            trained.save(folder)
            files = hash_files(folder)
            manifest = make_manifest(trained, files, identity, git, origin, tuning)
            manifest = self._signatures.sign_new_version(manifest, folder)
        return self._create_version(manifest)

    def import_version(self, version: ModelVersion, *, progress: Reporter | None = None) -> ModelVersion:
        """Import a version that was created elsewhere, as the next version of this store.

        Raises:
            StoreError: a file does not match the manifest; or signatures are required, the version has no valid one,
                and there is no key to sign it with.
        """
        app = version.app
        self._documents.check_format()
        self._documents.write_format()
        check_version_files(version.manifest, version.files)  # before anything is sent
        identity = uuid.uuid4().hex
        with self.storage.upload_folder(f"{app}/files/{identity}", progress) as folder:
            for name in version.manifest.files:
                copy = folder / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(version.files / name, copy, follow_symlinks=False)
            check_version_files(version.manifest, folder)
            manifest = version.manifest
            if self._signatures.is_required:
                manifest = self._signatures.sign_new_version(manifest, folder)
                self._signatures.verify_signatures(manifest, folder)
        return self._create_version(msgspec.structs.replace(manifest, folder=f"files/{identity}"))

    def find_number(self, manifest: Manifest) -> int | None:
        """The number in this store of a version from any store, by creation time and files; None if it is not here."""
        for version in self.versions(manifest.app, []):
            if (version.created, version.files) == (manifest.created, manifest.files):
                return version.version
        return None

    def list_numbers(self, app: str) -> list[int]:
        """The numbers of the existing versions, oldest first."""
        return self._manifests.list_numbers(app)

    def versions(
        self, app: str, damaged: list[StoreError] | None = None, *, newest: int | None = None
    ) -> list[Manifest]:
        """The manifests of all versions, oldest first.

        Args:
            damaged: receives the errors of unreadable manifests; if None, the first one is raised.
            newest: read only this number of newest versions.
        """
        return self._manifests.read_manifests(app, damaged, newest=newest)

    def manifest(self, app: str, number: int) -> Manifest:
        """The manifest of one version.

        Raises:
            StoreError: the manifest is not readable, or belongs to another version.
        """
        return self._manifests.read_manifest(app, number)

    def signed_manifest(self, app: str, number: int) -> Manifest:
        """The manifest of one version with all of its signatures, including those of `mlapp models sign`.

        Raises:
            StoreError: the manifest is not readable, or belongs to another version.
        """
        return self._manifests.read_signed_manifest(app, number)

    def apps(self) -> list[str]:
        """The names of the apps with versions in this store."""
        names = [name for name in self.storage.list_names("") if name != "store.json" and APP.fullmatch(name)]
        return sorted(name for name in names if self.list_numbers(name))

    def resolve(self, app: str, reference: str | int = LATEST) -> int:
        """Resolve a number, an alias or `latest` to a number.

        Raises:
            UsageError: the version or alias does not exist; the message suggests the nearest ones.
        """
        return self._references.resolve_reference(app, reference)

    def get(self, app: str, reference: str | int = LATEST, *, progress: Reporter | None = None) -> ModelVersion:
        """A version with its files, each checked against its SHA-256.

        Raises:
            UsageError: the version or alias does not exist. StoreError: a file is missing or was changed; or signatures
                are required, and the version has no valid one.
        """
        version = self._fetch_version(app, reference, progress)
        if self._signatures.is_required:
            self._signatures.verify_signatures(version.manifest, version.files)
        return version

    def require_signed(self, version: ModelVersion) -> None:
        """Refuse a version from elsewhere if signatures are required and it has no valid one.

        Raises:
            StoreError: the version is refused, or one of its files does not match the manifest.
        """
        if self._signatures.is_required:
            check_version_files(version.manifest, version.files)
            self._signatures.verify_signatures(version.manifest, version.files)

    def sign_version(self, app: str, reference: str | int = LATEST, *, keyless: bool = False) -> int:
        """Add a signature to a version; returns its number.

        Raises:
            UsageError: no such version or alias. ConfigError: no key to sign with. StoreError: see `get`.
        """
        version = self._fetch_version(app, reference, None)
        self._signatures.sign_stored_version(version.manifest, version.files, keyless=keyless)
        return version.version

    def verify_version(self, app: str, reference: str | int = LATEST) -> int:
        """Check a version's files in the store, not their copies, and its signatures; returns its number.

        Checks them whether or not the settings require it.

        Raises:
            UsageError, ConfigError, StoreError: see `get`.
        """
        version = self._fetch_version(app, reference, None, fresh=True)
        self._signatures.verify_signatures(version.manifest, version.files)
        return version.version

    def _fetch_version(
        self, app: str, reference: str | int, progress: Reporter | None, *, fresh: bool = False
    ) -> ModelVersion:
        """A version with its files, each checked against its SHA-256, and with all of its signatures.

        Args:
            fresh: replace local copies.
        """
        manifest = self.signed_manifest(app, self.resolve(app, reference))
        prefix = f"{app}/{manifest.folder}"
        refuse_files_without_hashes(manifest, self.storage.list_unfetched(prefix, manifest.files), repr(self.storage))
        folder = self.storage.fetch_folder(prefix, manifest.files, progress, fresh=fresh)
        try:
            check_version_files(manifest, folder)
        except StoreError:  # possibly only the local copy is damaged
            folder = self.storage.fetch_folder(prefix, manifest.files, progress, fresh=True)
            check_version_files(manifest, folder)
        return ModelVersion(manifest, folder)

    def delete(self, app: str, reference: str | int) -> int:
        """Delete a version; its number is never reused.

        Raises:
            UsageError: no such version, an alias points at it, or another process has just deleted it.
        """
        number = self.resolve(app, reference)
        aliases = [alias for alias, at in self.aliases(app).items() if at == number]
        if aliases:
            raise UsageError(
                f"Version {number} of '{app}' has the alias {', '.join(aliases)}.",
                "Move the alias to another version first: `mlapp models promote`.",
            )
        try:
            folder: str | None = self.manifest(app, number).folder
        except StoreError:  # its files cannot be identified, so they stay
            folder = None
        delete_version(self.storage, app, number, folder)
        return number

    def list_expendable(self, app: str, keep: int) -> list[Manifest]:
        """The versions to prune: all except the newest `keep`, and except those that an alias points at."""
        aliased = set(self.aliases(app).values())
        versions = self.versions(app, [])
        return [version for version in versions[: max(0, len(versions) - keep)] if version.version not in aliased]

    def aliases(self, app: str, damaged: list[StoreError] | None = None) -> dict[str, int]:
        """The target version of each alias.

        Args:
            damaged: receives the errors of unreadable aliases; if None, the first one is raised.
        """
        return self._aliases.list_alias_targets(app, damaged)

    def alias_history(self, app: str, alias: str) -> list[AliasEntry]:
        """The changes of an alias, oldest first.

        Raises:
            UsageError: the name is not a valid alias.
        """
        require_alias_name(alias)
        return self._aliases.read_alias_history(app, alias)

    def promote(self, app: str, reference: str | int, alias: str) -> int:
        """Point an alias at a version, atomically for all readers.

        Raises:
            UsageError: there is no such version, or the name is not a valid alias. StoreError: see `release`.
        """
        require_alias_name(alias)
        number = self.resolve(app, reference)
        if alias != CHALLENGER:
            self.release(app, number)
        self._aliases.move_alias(app, alias, number)
        return number

    def release(self, app: str, number: int) -> None:
        """Allow a held version to be `latest`, as promoting it also does.

        Raises:
            StoreError: signatures are required, and the version has no valid one: servers would refuse it.
        """
        if self._signatures.is_required:
            self.get(app, number)
        self._references.release_held_version(app, number)

    def _create_version(self, manifest: Manifest) -> ModelVersion:
        """Create the version. On an error, the files stay: the manifest can exist if only the response was lost."""
        created = self._manifests.create_manifest(manifest)
        return ModelVersion(created, self.storage.fetch_folder(f"{created.app}/{created.folder}", created.files))
