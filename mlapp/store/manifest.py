"""The manifest: everything that the store records about a version."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from mlapp.pipeline.parameters import Recorded
from mlapp.provenance import GitState
from mlapp.schema import ModelSchema
from mlapp.store import names

FORMAT = 1
"""The layout of a store that this mlapp writes, and the newest that it reads."""


class StoredFile(msgspec.Struct, frozen=True):
    """A file of a version: its SHA-256 in hexadecimal digits, and its size in bytes."""

    sha256: str
    size: int

    def __post_init__(self) -> None:
        if not names.SHA256.fullmatch(self.sha256) or self.size < 0:
            raise ValueError("it has a file without a SHA-256 and a size")


class Data(msgspec.Struct, frozen=True):
    """The training data: the fingerprint of the table, its rows and columns."""

    fingerprint: str
    rows: int
    columns: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of a model, as stored in JSON.

    Attributes:
        created: when the training began, in UTC; `duration` in seconds.
        parameters: every parameter of every stage, as `mlapp.pipeline.values.plain_value` writes it.
        metrics: split → metric → value.
        libraries: distribution → version, of those that matter to loading the model.
        files: name, relative to the version's folder → file.
        folder: where the files are, relative to the app's part of the store.
        origin: the engine that trained it, and what that engine calls the run.
        parent: the version that the training went on from.
        batching: False where a row's prediction depends on the rows beside it: requests do not share a call.
        signatures: Sigstore bundles in JSON, made when it was stored; later ones are kept beside it.
        tuning: the trials of a search, when one found the parameters.
    """

    format: int
    app: str
    version: int
    created: datetime
    duration: float
    parameters: dict[str, Any]
    metrics: dict[str, dict[str, float | None]]
    schema: ModelSchema
    framework: str
    model_format: str
    libraries: dict[str, str]
    python: str
    mlapp: str
    data: Data
    files: dict[str, StoredFile]
    folder: str
    git: GitState | None = None
    origin: dict[str, str] = {}
    tuning: dict[str, Any] | None = None
    parent: int | None = None
    batching: bool = True
    model: str = ""
    signatures: list[str] = []

    def __post_init__(self) -> None:
        """Check what becomes a path, a key, a requirement or the name of a loader: the store's writers chose it.

        Raises:
            ValueError: a name that leads elsewhere, or no files. msgspec adds it to its own error when it decodes.
        """
        if not names.APP.fullmatch(self.app):
            raise ValueError(f"its app is {self.app!r}, which is no name of an app")
        if self.version < 0:
            raise ValueError(f"its version is {self.version}")
        if not names.FOLDER.fullmatch(self.folder):
            raise ValueError(f"its folder is {self.folder!r}, which is no folder of a version")
        if not self.files:
            raise ValueError("it lists no files")
        for name in self.files:
            if not names.is_relative_path(name):
                raise ValueError(f"it names the file {name!r}, which is no path below the version's folder")
        for name, version in self.libraries.items():
            if not names.WORD.fullmatch(name) or not names.VERSION.fullmatch(version):
                raise ValueError(f"it names the library {name!r} {version!r}")
        if not names.WORD.fullmatch(self.framework):
            raise ValueError(f"its framework is {self.framework!r}")
        if self.model_format and not names.WORD.fullmatch(self.model_format):
            raise ValueError(f"its format is {self.model_format!r}")
        if not names.VERSION.fullmatch(self.python):
            raise ValueError(f"its Python is {self.python!r}")

    @property
    def headline(self) -> dict[str, float | None]:
        """The metrics of the last split, which the model was not trained on when there are two or more."""
        return next(reversed(self.metrics.values()), {})


def recorded_parameters(manifest: Manifest) -> dict[str, Any]:
    """The parameters of a version, to train another one with them."""
    return {name: Recorded(value) for name, value in manifest.parameters.items()}
