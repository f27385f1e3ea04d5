"""One Shipment on one track (live or canary): names, labels and metadata of the objects that run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from mlapp.config import Serve
from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.naming import Names
from mlapp.deploy.cluster.object_kinds import Kind
from mlapp.deploy.cluster.settings import ClusterSection, ServerSection
from mlapp.deploy.target import Shipment

S = TypeVar("S", bound=ServerSection)

Track = Literal["live", "canary"]


@dataclass(frozen=True)
class TrackContext(Generic[S]):
    """One Shipment on one track, with the settings for rendering it."""

    shipment: Shipment
    settings: S
    serve: Serve
    track: Track = "live"

    @property
    def names(self) -> Names:
        """Names of the objects."""
        return Names(self.shipment.app)

    @property
    def instance(self) -> str:
        """Name of this track's workload."""
        return self.names.canary if self.track == "canary" else self.names.base

    @property
    def owner(self) -> str | None:
        """The team that owns the app, for a label."""
        return None

    @property
    def grace(self) -> float:
        """Seconds after SIGTERM during which the server still answers, and closes idle connections.

        The server's default is 0, which suits a laptop. In a cluster, clients keep connections open through a load
        balancer, and closing one during a request loses the request.
        """
        return self.serve.grace or float(self.settings.rollout.leave)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of this track's objects."""
        user_labels = {**self.settings.labels, **self.shipment.labels}
        return labels.make_object_labels(self.names, self.instance, self.owner, user_labels)

    def make_document(self, kind: Kind, name: str, **content: Any) -> dict[str, Any]:
        """A document with its metadata."""
        return make_track_context_document(self.settings, kind, name, self.labels, **content)


def make_track_context_document(
    settings: ClusterSection, kind: Kind, name: str, own_labels: dict[str, str], **content: Any
) -> dict[str, Any]:
    """A document with its metadata: name, namespace, labels and annotations."""
    metadata: dict[str, Any] = {"name": name}
    if kind.namespaced and settings.namespace_name:
        metadata["namespace"] = settings.namespace_name
    metadata["labels"] = own_labels
    if settings.annotations:
        metadata["annotations"] = dict(settings.annotations)
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **content}
