"""The manifests of an app's versions."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec

from mlapp import distribution, provenance
from mlapp.errors import StoreError
from mlapp.model import TrainedModel
from mlapp.pipeline.parameter_values import to_plain_parameter_value
from mlapp.provenance import GitState
from mlapp.schema.json_values import to_json_value
from mlapp.store.json_documents import JsonDocuments
from mlapp.store.manifest import FORMAT, Data, Manifest, StoredFile
from mlapp.store.numbered_names import LARGEST, format_key_number, format_number_name, parse_number_names
from mlapp.store.signatures import join_signatures
from mlapp.store.storage import Storage

FIRST_LOOKUP = 64
"""Number of newest versions that are looked up first."""


class Manifests:
    """The manifests in a store. A version exists if its manifest does and it is not marked as deleted."""

    def __init__(self, storage: Storage, documents: JsonDocuments) -> None:
        self._storage = storage
        self._documents = documents

    def list_numbers(self, app: str) -> list[int]:
        """The numbers of the existing versions, from old to new."""
        self._documents.check_format()
        return sorted(
            parse_number_names(self._storage.list_names(f"{app}/versions"))
            - parse_number_names(self._storage.list_names(f"{app}/deleted"))
        )

    def iterate_newest(self, app: str) -> Iterator[int]:
        """The numbers of the existing versions, newest first. The cost of the first does not depend on their number."""
        self._documents.check_format()
        count, before = FIRST_LOOKUP, math.inf
        while True:
            numbers = parse_number_names(self._storage.list_last_names(f"{app}/versions", count))
            if not numbers or min(numbers) >= before:
                return
            start = format_number_name(min(numbers) - 1)
            deleted = parse_number_names(self._storage.list_names(f"{app}/deleted", start))
            yield from sorted((number for number in numbers - deleted if number < before), reverse=True)
            if len(numbers) < count:
                return
            count, before = 16 * count, min(numbers)

    def has_version(self, app: str, number: int) -> bool:
        """Whether a version exists."""
        self._documents.check_format()
        if number > LARGEST:
            return number in self.list_numbers(app)
        manifest, mark = self._storage.read_keys(
            [_make_manifest_key(app, number), f"{app}/deleted/{format_number_name(number)}"]
        )
        return manifest is not None and mark is None

    def read_manifests(
        self, app: str, damaged: list[StoreError] | None = None, *, newest: int | None = None
    ) -> list[Manifest]:
        """The manifests of all versions, from old to new.

        Args:
            damaged: receives the error of each manifest that cannot be read. If None, the first error is raised.
            newest: read only this number of the newest ones.
        """
        numbers = sorted(islice(self.iterate_newest(app), newest)) if newest else self.list_numbers(app)
        contents = self._storage.read_keys([_make_manifest_key(app, number) for number in numbers])
        manifests = []
        for number, content in zip(numbers, contents, strict=True):
            try:
                manifests.append(self._decode_manifest(app, number, content))
            except StoreError as error:
                if damaged is None:
                    raise
                damaged.append(error)
        return manifests

    def read_manifest(self, app: str, number: int) -> Manifest:
        """The manifest of one version.

        Raises:
            StoreError: it is not readable, or belongs to another version.
        """
        return self._decode_manifest(app, number, self._storage.read_key(_make_manifest_key(app, number)))

    def read_signed_manifest(self, app: str, number: int) -> Manifest:
        """The manifest of one version, with the signatures that were added later.

        Raises:
            StoreError: it is not readable, or belongs to another version.
        """
        signatures = make_signatures_key(app, number)
        keys = [f"{signatures}/{name}" for name in sorted(self._storage.list_names(signatures))]
        later_signatures = [content.decode(errors="replace") for content in self._storage.read_keys(keys) if content]
        return join_signatures(self.read_manifest(app, number), later_signatures)

    def create_manifest(self, manifest: Manifest) -> Manifest:
        """Create a version: store its manifest under the next free number."""
        number = max(parse_number_names(self._storage.list_last_names(f"{manifest.app}/versions", 1)), default=0)
        while True:
            number += 1
            numbered = msgspec.structs.replace(manifest, version=number)
            content = msgspec.json.format(msgspec.json.encode(numbered))
            if self._storage.create_key(_make_manifest_key(manifest.app, number), content):
                return numbered

    def _decode_manifest(self, app: str, number: int, content: bytes | None) -> Manifest:
        key = _make_manifest_key(app, number)
        manifest = self._documents.decode_document(key, content, Manifest)
        if (manifest.app, manifest.version) != (app, number):
            raise StoreError(
                f"{key} of the model store {self._storage!r} belongs to version {manifest.version} "
                f"of '{manifest.app}'.",
                "Restore it from a backup; do not trust this version.",
            )
        return manifest


def make_manifest(
    trained: TrainedModel,
    files: dict[str, StoredFile],
    identity: str,
    git: GitState | None,
    origin: Mapping[str, str] | None,
    tuning: Mapping[str, Any] | None,
) -> Manifest:
    """The manifest of a version that has no number yet."""
    return Manifest(
        format=FORMAT,
        app=trained.pipeline.name,
        version=0,
        created=trained.started,
        duration=round(trained.duration, 6),
        parameters=to_plain_parameter_value(dict(trained.parameters)),
        metrics={
            split: {name: to_json_value(value) for name, value in values.items()}
            for split, values in trained.metrics.items()
        },
        schema=trained.schema,
        framework=trained.framework.name,
        model_format=trained.format,
        libraries=provenance.read_installed_versions((*trained.framework.libraries, "pandas")),
        python=platform.python_version(),
        mlapp=distribution.version(),
        data=Data(trained.fingerprint, trained.rows, trained.columns),
        files=files,
        folder=f"files/{identity}",
        git=git,
        origin=dict(origin or {"engine": "local"}),
        tuning=dict(tuning) if tuning else None,
        parent=trained.parent,
        batching=trained.batching,
        model=trained.kind_name,
    )


def make_signatures_key(app: str, number: int) -> str:
    """The prefix of the signatures that were added to a version."""
    return f"{app}/signatures/{format_key_number(number)}"


def _make_manifest_key(app: str, number: int) -> str:
    return f"{app}/versions/{format_number_name(number)}"
