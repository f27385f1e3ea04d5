"""Releases, recorded in the cluster: one ConfigMap each, with the shipment and all rendered objects.

A rollback applies those objects again: image, model and configuration together. A ConfigMap is enough because the
record has no secrets, and deploying then needs no permission to read Secrets.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import msgspec
import yaml

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.api_errors import ApiError
from mlapp.deploy.cluster.naming import Names
from mlapp.deploy.cluster.object_kinds import CONFIG_MAP
from mlapp.deploy.target import DeployError, Release, Shipment, State
from mlapp.deploy.yaml_dump import dump_yaml_documents

MAX_EXAMPLE_LENGTH = 64 * 1024
"""Maximum characters of a recorded example. A ConfigMap is limited to 1 MiB in total."""


@dataclass(frozen=True)
class ReleaseRecord:
    """A release and its objects. `percent` is a canary's share; `repeats` is the release that a rollback restored."""

    release: Release
    objects: str
    percent: int | None = None
    repeats: int | None = None

    @property
    def number(self) -> int:
        """The release's number."""
        return self.release.number

    @property
    def state(self) -> State:
        """The release's state."""
        return self.release.state

    @cached_property
    def documents(self) -> list[dict[str, Any]]:
        """The objects as applied."""
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return list(yaml.load_all(self.objects, Loader=loader))


class Releases:
    """The releases of one app in one namespace."""

    def __init__(self, cluster: Cluster, names: Names, target: str) -> None:
        """`target` is the name of the target that creates the releases."""
        self._cluster = cluster
        self.names = names
        self.target = target

    def list_records(self) -> list[ReleaseRecord]:
        """Every record, oldest first.

        Raises:
            DeployError: another target deployed an app of this name to the namespace.
        """
        selector = f"{labels.APP}={self.names.base},{labels.RECORD}=release"
        records = [_decode_release(item) for item in self._cluster.list_objects(CONFIG_MAP, selector)]
        if foreign_record := next((record for record in records if record.release.target != self.target), None):
            owner = foreign_record.release.target
            raise DeployError(
                f"{self.names.app} is deployed in {self._cluster.place} by the target {owner}, not {self.target}.",
                f"Use --target {owner}, or another namespace; `mlapp delete --target {owner}` removes that one.",
            )
        return sorted(records, key=lambda record: record.number)

    def create_record(
        self,
        shipment: Shipment,
        documents: Sequence[dict[str, Any]],
        existing: Sequence[ReleaseRecord],
        *,
        by: str | None,
        note: str | None = None,
        percent: int | None = None,
        repeats: int | None = None,
        url: str | None = None,
    ) -> ReleaseRecord:
        """Record a release that is about to be applied, as `pending`."""
        number = existing[-1].number + 1 if existing else 1
        if len(json.dumps(shipment.example)) > MAX_EXAMPLE_LENGTH:
            shipment = replace(shipment, example=None)
        shipment = replace(shipment, manifest=None)  # an object contains it if the target needs it
        now = datetime.now(timezone.utc).replace(microsecond=0)
        release = Release(number, shipment.app, self.target, shipment, now, "pending", by=by, note=note, url=url)
        record = ReleaseRecord(release, dump_yaml_documents(documents), percent, repeats)
        try:
            self._cluster.create_object(self._make_release_document(record))
        except ApiError as error:
            if error.reason == "AlreadyExists":
                raise DeployError(
                    f"Release {number} of {shipment.app} was created by another deploy just now; nothing was changed.",
                    "Look at `mlapp releases`, and deploy again.",
                ) from None
            raise
        return record

    def mark_state(
        self, record: ReleaseRecord, state: State, note: str | None = None, *, url: str | None = None
    ) -> ReleaseRecord:
        """Change a release's state, and its note and URL if given."""
        old_release = record.release
        release = replace(old_release, state=state, note=note or old_release.note, url=url or old_release.url)
        new_record = replace(record, release=release)
        change = {
            "metadata": {"labels": {labels.STATE: state}},
            "data": {"release.json": _encode_release(new_record)},
        }
        self._cluster.patch_object(CONFIG_MAP, self.names.release_name(record.number), change)
        return new_record

    def trim_records(self, records: Sequence[ReleaseRecord], keep: int) -> None:
        """Remove the oldest records beyond `keep`, but never the live one.

        Failed releases are counted separately, so that they never displace a release to roll back to.
        """
        for states in (("superseded", "live"), ("failed", "aborted")):
            candidates = [record for record in records if record.state in states]
            for record in candidates[: max(0, len(candidates) - keep)]:
                if record.state != "live":
                    self._cluster.delete_object(self._make_release_document(record))

    def remove_records(self, records: Sequence[ReleaseRecord]) -> list[str]:
        """Remove all records."""
        return [
            f"release {record.number}"
            for record in records
            if self._cluster.delete_object(self._make_release_document(record))
        ]

    def _make_release_document(self, record: ReleaseRecord) -> dict[str, Any]:
        own_labels = {
            labels.NAME: self.names.base,
            labels.INSTANCE: self.names.base,
            labels.MANAGED_BY: "mlapp",
            labels.APP: self.names.base,
            labels.RECORD: "release",
            labels.STATE: record.state,
        }
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.names.release_name(record.number), "labels": own_labels},
            "data": {"release.json": _encode_release(record), "objects.yaml": record.objects},
        }


def find_live_release(records: Sequence[ReleaseRecord]) -> ReleaseRecord | None:
    """The release that serves."""
    return next((record for record in reversed(records) if record.state == "live"), None)


def find_canary_release(records: Sequence[ReleaseRecord]) -> ReleaseRecord | None:
    """The canary."""
    return next((record for record in reversed(records) if record.state == "canary"), None)


def find_interrupted_release(records: Sequence[ReleaseRecord]) -> ReleaseRecord | None:
    """The latest release if its deploy never finished."""
    return records[-1] if records and records[-1].state == "pending" else None


def choose_rollback_release(records: Sequence[ReleaseRecord], number: int | None) -> ReleaseRecord:
    """The release to roll back to: `number`, or by default the one that was live before the current one.

    After an interrupted deploy, the default is the release that is still recorded as live.

    Raises:
        DeployError: there is no such release.
    """
    if number is None:
        live = find_live_release(records)
        if live and find_interrupted_release(records):
            return live
        # Rolling back twice goes two releases back, not back and forth.
        limit = (live.repeats or live.number) if live else (records[-1].number + 1 if records else 0)
        earlier = [record for record in records if record.state == "superseded" and record.number < limit]
        if earlier:
            return earlier[-1]
        raise DeployError(
            "There is no earlier release to go back to.", "Deploy a second release first; see `mlapp releases`."
        )
    record = next((record for record in records if record.number == number), None)
    if record is None:
        raise DeployError(
            f"There is no release {number}.",
            f"Releases: {', '.join(str(record.number) for record in records) or 'none'}. See `mlapp releases`.",
        )
    return record


def _encode_release(record: ReleaseRecord) -> str:
    extra = {"percent": record.percent, "repeats": record.repeats}
    return json.dumps({**msgspec.to_builtins(record.release), **extra}, indent=2, ensure_ascii=False)


def _decode_release(item: dict[str, Any]) -> ReleaseRecord:
    data = item.get("data") or {}
    name = item["metadata"]["name"]
    try:
        raw = json.loads(data["release.json"])
        extra = {key: raw.pop(key, None) for key in ("percent", "repeats")}
        return ReleaseRecord(msgspec.convert(raw, Release), data["objects.yaml"], **extra)
    except (KeyError, ValueError, msgspec.ValidationError) as error:
        raise DeployError(
            f"The record ConfigMap/{name} cannot be read: {error}",
            f"Remove it if nobody needs that release: kubectl delete configmap {name}",
        ) from None
