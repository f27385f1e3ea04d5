"""Shared input of all rendering functions: names, labels, settings, and the track (live or canary)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mlapp.config import Serve
from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.naming import Names
from mlapp.deploy.cluster.object_kinds import RENDERED
from mlapp.deploy.k8s.settings import KubernetesSettings
from mlapp.deploy.target import Shipment

Track = Literal["live", "canary"]


@dataclass(frozen=True)
class RenderContext:
    """One Shipment on one track, with the settings for rendering it."""

    shipment: Shipment
    settings: KubernetesSettings
    serve: Serve
    track: Track = "live"
    model_folder: str = "/app/model"

    @property
    def names(self) -> Names:
        """Names of the objects."""
        return Names(self.shipment.app)

    @property
    def instance(self) -> str:
        """Name of this track's Deployment and Service."""
        return self.names.canary if self.track == "canary" else self.names.base

    @property
    def grace(self) -> float:
        """Seconds after SIGTERM during which the server still answers and closes connections.

        The server's default is 0, which suits a laptop. In a cluster, clients keep connections open through a load
        balancer, and cutting one while a request is on its way loses the request.
        """
        return self.serve.grace or float(self.settings.rollout.leave)

    @property
    def selector(self) -> dict[str, str]:
        """Labels that select this track's pods; they never change."""
        return labels.selector_labels(self.names, self.instance)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of this track's objects."""
        own = {**self.settings.labels, **self.shipment.labels}
        return labels.object_labels(self.names, self.instance, self.settings.owner, own)

    def make_document(self, kind: str, name: str, **content: Any) -> dict[str, Any]:
        """A document with its metadata."""
        api_version = next(known.api_version for known in RENDERED if known.kind == kind)
        metadata: dict[str, Any] = {"name": name}
        if kind != "Namespace" and self.settings.namespace_name:
            metadata["namespace"] = self.settings.namespace_name
        metadata["labels"] = self.labels
        if self.settings.annotations:
            metadata["annotations"] = dict(self.settings.annotations)
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}
