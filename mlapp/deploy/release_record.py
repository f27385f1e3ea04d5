"""The record of a release on a platform that stores none: in a container's label, or in the tags of a Model."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import msgspec

from mlapp.deploy.target import Release, Shipment, State


class ReleaseRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A release, as it is stored."""

    number: int
    created: datetime
    image: str
    model_version: str | None = None
    code_revision: str | None = None
    example: list[Any] | None = None
    by: str | None = None
    note: str | None = None

    def make_shipment(self, app: str) -> Shipment:
        """The shipment."""
        return Shipment(app, self.image, self.model_version, self.code_revision, self.example)

    def make_release(self, app: str, target: str, state: State, url: str | None) -> Release:
        """The release, in the state `state`."""
        shipment = self.make_shipment(app)
        return Release(self.number, app, target, shipment, self.created, state, self.by, self.note, url)


def make_release_record(
    shipment: Shipment, number: int, by: str | None = None, note: str | None = None
) -> ReleaseRecord:
    """The record of a new release, created now."""
    example = list(shipment.example) if shipment.example is not None else None
    now = datetime.now(timezone.utc).replace(microsecond=0)
    return ReleaseRecord(number, now, shipment.image, shipment.model_version, shipment.code_revision, example, by, note)
