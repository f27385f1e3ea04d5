"""The manifest: everything that the store records about a version."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from mlapp.pipeline.parameters import RecordedValue
from mlapp.provenance import GitState
from mlapp.schema import ModelSchema
from mlapp.store import names

FORMAT = 1
"""The store format that this mlapp writes, which is also the newest that it reads."""


class StoredFile(msgspec.Struct, frozen=True):
    """A file of a version: SHA-256 hex digest and size in bytes."""

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
        created: the start of the training, in UTC.
        duration: of the training, in seconds.
        parameters: every parameter of every stage, in the format of
            `mlapp.pipeline.parameter_values.to_plain_parameter_value`.
        metrics: split → metric → value.
        libraries: distribution → version, for those that are needed to load the model.
        files: path in the version's folder → file.
        folder: the folder of the files, relative to the app's part of the store.
        origin: the engine that trained it, and the engine's ID of the run.
        parent: the version from which training continued.
        batching: False if a row's prediction depends on the other rows, so that requests must not be batched.
        signatures: Sigstore bundles in JSON, created when it was stored; later ones are stored separately.
        tuning: the trials of a search, if one found the parameters.
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
        """Check values that become paths, keys, requirements or loader names: any writer of the store can set them.

        Raises:
            ValueError: a name is unsafe, or there are no files. When decoding, msgspec adds it to its own error.
        """
        if not names.APP.fullmatch(self.app):
            raise ValueError(f"its app is {self.app!r}, which is not an app name")
        if self.version < 0:
            raise ValueError(f"its version is {self.version}")
        if not names.FOLDER.fullmatch(self.folder):
            raise ValueError(f"its folder is {self.folder!r}, which is not a version folder")
        if not self.files:
            raise ValueError("it lists no files")
        for name in self.files:
            if not names.is_relative_path(name):
                raise ValueError(f"it names the file {name!r}, which is not a path in the version's folder")
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
        """The metrics of the last split, on which the model was not trained if there are several."""
        return next(reversed(self.metrics.values()), {})


def list_manifest_parameters(manifest: Manifest) -> dict[str, Any]:
    """The parameters of a version, for training another version."""
    return {name: RecordedValue(value) for name, value in manifest.parameters.items()}
