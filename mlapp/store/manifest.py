"""What the store knows of a version."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from mlapp.pipeline.parameters import Recorded
from mlapp.provenance import GitState
from mlapp.schema import ModelSchema

FORMAT = 1
"""The layout of a store that this mlapp writes, and the newest that it reads."""


class StoredFile(msgspec.Struct, frozen=True):
    """A file of a version: its SHA-256 in hexadecimal digits, and its size in bytes."""

    sha256: str
    size: int


class Data(msgspec.Struct, frozen=True):
    """What the model was trained on: the fingerprint of the table, its rows and columns."""

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

    @property
    def headline(self) -> dict[str, float | None]:
        """The metrics of the last split, which the model was not trained on when there are two or more."""
        return next(reversed(self.metrics.values()), {})


def recorded_parameters(manifest: Manifest) -> dict[str, Any]:
    """The parameters of a version, to train another one with them."""
    return {name: Recorded(value) for name, value in manifest.parameters.items()}
