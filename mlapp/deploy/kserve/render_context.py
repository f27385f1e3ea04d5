"""Shared input of all functions that render KServe's objects."""

from __future__ import annotations

from dataclasses import dataclass

from mlapp.deploy.cluster.storage_uri import fill_storage_uri
from mlapp.deploy.cluster.track_context import TrackContext
from mlapp.deploy.kserve.settings import IMAGE, KServeSettings
from mlapp.deploy.kserve.settings_check import is_readable_by_kserve

SECTION = "targets.kserve"


@dataclass(frozen=True)
class KServeContext(TrackContext[KServeSettings]):
    """One Shipment on one track, with the settings for rendering it.

    KServe copies the labels of an InferenceService to all objects that it creates for it.
    """

    @property
    def is_knative(self) -> bool:
        """Whether Knative runs the pods."""
        return self.settings.mode == "knative"

    @property
    def storage_uri(self) -> str | None:
        """The URI from which KServe downloads the model version; None if the image's own model is served."""
        shipment, uri = self.shipment, self.settings.storage_uri
        if uri == IMAGE:
            return None
        if uri is not None:
            return fill_storage_uri(uri, shipment, SECTION)
        return shipment.model_uri if is_readable_by_kserve(shipment.model_uri) else None
