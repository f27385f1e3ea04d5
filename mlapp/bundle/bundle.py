"""The bundle's format.

<app>-<version>-<hash>/
    bundle.json           the manifest: what it holds, with the SHA-256 of every file
    requirements.txt      locked, with hashes; installable by pip and by uv
    sbom.cdx.json         the same as a CycloneDX bill of materials, and the model
    wheels/               mlapp itself, when the one that runs here is on no package index
    model/                a model store that holds the one version, or none where a platform mounts it
    code/                 the project
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from mlapp import config
from mlapp.app import App
from mlapp.bundle.mounted_model import FOLDER, find_mounted_store
from mlapp.bundle.mounted_model import MANIFEST as MOUNTED_MANIFEST
from mlapp.config import Settings
from mlapp.errors import MlappError, StoreError
from mlapp.project import Project
from mlapp.provenance import GitState
from mlapp.store import ModelVersion

FORMAT = 1
"""The layout of a bundle that this mlapp writes, and the newest that it reads."""

MANIFEST = "bundle.json"
REQUIREMENTS = "requirements.txt"
SBOM = "sbom.cdx.json"
CODE = "code"
MODEL = "model"
WHEELS = "wheels"
NO_VERSION = 0
"""The version of a bundle that holds no model."""
CODE_ONLY = "code"
"""What stands for the version in the name of such a bundle, and of its image."""


class BundleError(MlappError):
    """A bundle cannot be made, or is not what its manifest says."""


class BundleFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file of a bundle: SHA-256 in hexadecimal digits, size in bytes; or a symbolic link, with where it points."""

    sha256: str = ""
    size: int = 0
    executable: bool = False
    link: str | None = None


class BundleManifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Content of a bundle. It depends on nothing else, so that the same project gives the same bundle.

    Attributes:
        version: the model version in it; 0 when it holds none, because a platform mounts one: see `mounted_model`.
        created: seconds since 1970: `SOURCE_DATE_EPOCH`, or when the newer of commit and model was made.
        python: the minor version of Python that it is for, as 3.11.
        mlapp: the version of mlapp that serves it.
        requirements: where the requirements came from: a file of the project, or the model.
        source: the URL of the git repository's `origin`, without credentials.
        environment: the key of `environments:` in mlapp.yaml whose settings it serves with.
        files: path in the bundle → file, of every file but the manifest itself.
    """

    format: int
    app: str
    version: int
    created: int
    python: str
    mlapp: str
    requirements: str
    environment: str | None = None
    git: GitState | None = None
    source: str | None = None
    files: dict[str, BundleFile]


@dataclass(frozen=True)
class Bundle:
    """A bundle in `folder`. Its model is read and its app is imported when they are first asked for."""

    folder: Path
    manifest: BundleManifest

    @property
    def hash(self) -> str:
        """The bundle's name: 12 hexadecimal digits of the hash of its content."""
        return hash_manifest(self.manifest)

    @property
    def root(self) -> Path:
        """The folder of the project's code."""
        return self.folder / CODE

    @cached_property
    def project(self) -> Project:
        """The project in the bundle: its store is the bundle's, and what it serves is the one version in there.

        Raises:
            ConfigError: an `MLAPP_…` variable has a wrong value.
            StoreError: a model that a platform mounts is not there, or is of another app.
        """
        settings = config.load_settings(self.root, self.manifest.environment)
        own, version = self.folder / MODEL, self.manifest.version
        if mounted := find_mounted_store(self.manifest.app, own, version, os.environ):
            own, version = mounted
        serve = msgspec.structs.replace(settings.serve, model=str(version))
        store = msgspec.structs.replace(settings.store, url=str(own))
        monitor = settings.monitor
        if monitor.url is None:  # the store in the bundle is not to be written to
            place = settings.store.url
            url = place if "://" in place else str(Path(tempfile.gettempdir()) / "mlapp-monitor")
            monitor = msgspec.structs.replace(monitor, url=url)
        settings = msgspec.structs.replace(settings, store=store, serve=serve, monitor=monitor)
        return Project(self.root, settings, self.manifest.environment)

    @property
    def served_project(self) -> Project:
        """`project`, for a server.

        Raises:
            StoreError: the bundle holds no model, and none is mounted.
        """
        if self.project.settings.serve.model == str(NO_VERSION):
            raise StoreError(
                f"This image of {self.manifest.app} holds no model: it was built for a platform that mounts one.",
                f"Set {FOLDER} to the folder of a version's files and {MOUNTED_MANIFEST} to its manifest, or build "
                "an image with its model: `mlapp build`.",
            )
        return self.project

    @cached_property
    def model(self) -> ModelVersion:
        """The model version.

        Raises:
            StoreError: a file is missing or is not what was stored.
        """
        return self.project.store.get(self.manifest.app, self.project.settings.serve.model)

    @property
    def settings(self) -> Settings:
        return self.project.settings

    @property
    def app(self) -> App:
        return self.project.app


def hash_manifest(manifest: BundleManifest) -> str:
    """12 hexadecimal digits of the SHA-256 of the manifest, which holds those of all files."""
    return hashlib.sha256(msgspec.json.encode(manifest)).hexdigest()[:12]
