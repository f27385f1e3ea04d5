"""Opens bundles, and defines their format.

<app>-<version>-<hash>/
    bundle.json           the manifest: the content, with the SHA-256 of every file
    requirements.txt      locked, with hashes; installable by pip and by uv
    sbom.cdx.json         the same as a CycloneDX bill of materials, and the model
    wheels/               mlapp itself, if this version is on no package index
    model/                a model store with the one version, or without versions if a platform mounts it; in .onnx,
                          the version's conversion for `serve.runtime: onnx`
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

from mlapp import config, distribution
from mlapp.app import App
from mlapp.bundle.mounted_model import FOLDER, find_mounted_store
from mlapp.bundle.mounted_model import MANIFEST as MOUNTED_MANIFEST
from mlapp.config import Settings
from mlapp.errors import MlappError, StoreError
from mlapp.project import Project
from mlapp.provenance import GitState
from mlapp.store import ModelVersion

FORMAT = 1
"""The bundle format that this mlapp writes, which is also the newest that it reads."""

MANIFEST = "bundle.json"
REQUIREMENTS = "requirements.txt"
SBOM = "sbom.cdx.json"
CODE = "code"
MODEL = "model"
WHEELS = "wheels"
CONVERSIONS = ".onnx"
"""The folder in `model/` with the model's conversion to ONNX, if `serve.runtime` is `onnx`."""
NO_VERSION = 0
"""The version of a bundle without a model."""
CODE_ONLY = "code"
"""Stands for the version in the name of a bundle without a model, and of its image."""


class BundleError(MlappError):
    """A bundle cannot be created, or does not match its manifest."""


class BundleFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file of a bundle, with SHA-256 hex digest and size in bytes; or a symbolic link, with its target."""

    sha256: str = ""
    size: int = 0
    executable: bool = False
    link: str | None = None


class BundleManifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of a bundle. It depends only on the project, so that the same project results in the same bundle.

    Attributes:
        version: the model version in the bundle; 0 if it has none, because a platform mounts one: see `mounted_model`.
        created: Unix time in seconds: `SOURCE_DATE_EPOCH`, or the time of the commit or the model, whichever is later.
        python: the required minor version of Python, such as 3.11.
        mlapp: the version of mlapp that serves it.
        requirements: the source of the requirements: a file of the project, or the model.
        source: the URL of the git repository's `origin`, without credentials.
        environment: the key of `environments:` in mlapp.yaml with the settings for serving.
        files: path in the bundle → file, for every file except the manifest.
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
    """A bundle in `folder`. Its model is read and its app is imported on first access."""

    folder: Path
    manifest: BundleManifest

    @property
    def hash(self) -> str:
        """The bundle's identifier: the first 12 hex digits of the hash of its content."""
        return hash_bundle_manifest(self.manifest)

    @property
    def root(self) -> Path:
        """The folder of the project's code."""
        return self.folder / CODE

    @cached_property
    def project(self) -> Project:
        """The project in the bundle. It uses the bundle's store, and serves the store's only version.

        Raises:
            ConfigError: an `MLAPP_…` variable has a wrong value.
            StoreError: a model that a platform mounts is missing, or belongs to another app.
        """
        settings = config.load_settings(self.root, self.manifest.environment)
        own, version = self.folder / MODEL, self.manifest.version
        if mounted := find_mounted_store(self.manifest.app, own, version, os.environ):
            own, version = mounted
        serve = msgspec.structs.replace(settings.serve, model=str(version))
        store = msgspec.structs.replace(settings.store, url=str(own))
        monitor = settings.monitor
        if monitor.url is None:  # the bundle's store must not be written to
            place = settings.store.url
            url = place if "://" in place else str(Path(tempfile.gettempdir()) / "mlapp-monitor")
            monitor = msgspec.structs.replace(monitor, url=url)
        settings = msgspec.structs.replace(settings, store=store, serve=serve, monitor=monitor)
        return Project(self.root, settings, self.manifest.environment)

    @property
    def served_project(self) -> Project:
        """Same as `project`, but with a check that there is a model to serve.

        Raises:
            StoreError: the bundle has no model, and none is mounted.
        """
        if self.project.settings.serve.model == str(NO_VERSION):
            raise StoreError(
                f"This image of {self.manifest.app} contains no model: it was built for a platform that mounts one.",
                f"Set {FOLDER} to the folder of a version's files and {MOUNTED_MANIFEST} to its manifest, or build "
                "an image with its model: `mlapp build`.",
            )
        return self.project

    @cached_property
    def model(self) -> ModelVersion:
        """The model version.

        Raises:
            StoreError: a file is missing or was changed.
        """
        return self.project.store.get(self.manifest.app, self.project.settings.serve.model)

    @property
    def settings(self) -> Settings:
        return self.project.settings

    @property
    def app(self) -> App:
        return self.project.app


def hash_bundle_manifest(manifest: BundleManifest) -> str:
    """The first 12 hex digits of the SHA-256 of the manifest, which contains the hashes of all files."""
    return hashlib.sha256(msgspec.json.encode(manifest)).hexdigest()[:12]


def open_bundle(folder: Path | str) -> Bundle:
    """Open the bundle in `folder` and check its code and its conversion to ONNX against the manifest.

    The store checks the model. Imports no code.

    Raises:
        BundleError: it is not a bundle, is from a newer mlapp, or a file is missing or was changed.
    """
    place = Path(folder).resolve()
    manifest = _read_bundle_manifest(place / MANIFEST)
    for name, file in manifest.files.items():
        if name.startswith((f"{CODE}/", f"{MODEL}/{CONVERSIONS}/")) and file.link is None:
            _check_bundle_file(place / name, file.sha256, place)
    return Bundle(place, manifest)


def _read_bundle_manifest(path: Path) -> BundleManifest:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BundleError(
            f"{path.parent} is not a bundle: it has no {path.name}.", "Create one: mlapp build --bundle-only."
        ) from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from None
    try:
        raw = msgspec.json.decode(content)
        if isinstance(raw, dict) and int(raw.get("format", 0)) > FORMAT:
            raise BundleError(
                f"{path} is from a newer mlapp: it has format {raw['format']}; this mlapp reads formats up to "
                f"{FORMAT}.",
                f"Upgrade: pip install --upgrade {distribution.NAME}.",
            )
        return msgspec.convert(raw, BundleManifest)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} is damaged: {error}", "Build the bundle again: mlapp build --bundle-only.") from None


def _check_bundle_file(path: Path, sha256: str, folder: Path) -> None:
    try:
        digest = hash_bundle_file(path)
    except OSError:
        raise BundleError(
            f"{path.relative_to(folder)} is missing from {folder}.",
            "Build the bundle again: mlapp build --bundle-only.",
        ) from None
    if digest != sha256:
        raise BundleError(
            f"{path.relative_to(folder)} in {folder} was changed after the bundle was created.",
            "Bundles are immutable: change the project, and create another bundle.",
        )


def hash_bundle_file(path: Path) -> str:
    """The SHA-256 of a file as hex digits, read in blocks."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
