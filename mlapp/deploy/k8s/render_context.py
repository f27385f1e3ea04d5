"""Shared input of all rendering functions: names, labels, settings, and the track (live or canary)."""

from __future__ import annotations

from dataclasses import dataclass

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.track_context import TrackContext
from mlapp.deploy.k8s.settings import KubernetesSettings


@dataclass(frozen=True)
class RenderContext(TrackContext[KubernetesSettings]):
    """One Shipment on one track, with the settings for rendering it."""

    model_folder: str = "/app/model"

    @property
    def owner(self) -> str | None:
        """The team that owns the app."""
        return self.settings.owner

    @property
    def has_monitoring_job(self) -> bool:
        """Whether a CronJob closes the monitoring windows; if not, the servers do. It needs the model in the image."""
        return self.shipment.monitor_schedule is not None and self.settings.model_pull is None

    @property
    def selector(self) -> dict[str, str]:
        """Labels that select this track's pods; they never change."""
        return labels.make_selector_labels(self.names, self.instance)
