"""The Kubernetes target: a Deployment and its related objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mlapp.deploy.cluster import labels, object_kinds
from mlapp.deploy.cluster.deploy_session import DeploySession
from mlapp.deploy.cluster.object_kinds import DEPLOYMENT
from mlapp.deploy.cluster.releases import ReleaseRecord
from mlapp.deploy.cluster.rollout import RolloutWait
from mlapp.deploy.cluster.server_target import ServerTarget
from mlapp.deploy.k8s import canary, eject, service_address
from mlapp.deploy.k8s import status as kubernetes_status
from mlapp.deploy.k8s.networking import find_k8s_network_address
from mlapp.deploy.k8s.render import render_kubernetes_canary, render_kubernetes_release
from mlapp.deploy.k8s.render_context import RenderContext
from mlapp.deploy.k8s.settings import KubernetesSettings
from mlapp.deploy.target import Shipment, Status
from mlapp.reporting import Reporter


class KubernetesTarget(ServerTarget[KubernetesSettings]):
    """An app in one namespace of one cluster."""

    name = "k8s"
    settings_type = KubernetesSettings
    eject_formats: ClassVar[tuple[str, ...]] = eject.FORMATS
    prunable = object_kinds.PRUNED
    watched = (DEPLOYMENT,)

    def render(self, shipment: Shipment) -> list[dict[str, Any]]:
        """The documents, in the order of application."""
        return render_kubernetes_release(shipment, self.settings, self.serve)

    def render_canary(self, shipment: Shipment, percent: int) -> list[dict[str, Any]]:
        """The documents of a canary, beside the number of live pods in the settings."""
        scaling = self.settings.autoscaling
        replicas = canary.compute_canary_replicas(scaling.min if scaling else self.settings.replicas, percent)
        return render_kubernetes_canary(shipment, self.settings, self.serve, replicas, percent)

    def find_url(self, shipment: Shipment) -> str:
        """The URL of the app: the external one if there is one, otherwise the one inside the cluster."""
        return find_k8s_network_address(RenderContext(shipment, self.settings, self.serve), self.cluster.namespace)

    def find_assigned_url(self, record: ReleaseRecord, progress: Reporter) -> str | None:
        """The URL that the cluster assigned to the Service; None if it is already known or not yet assigned."""
        if not service_address.is_address_assigned_by_cluster(record):
            return None
        if url := service_address.find_service_url(self.cluster, self.names, record):
            return url
        progress("the Service has no external address yet: `mlapp status` shows it as soon as it has one")
        return None

    def wait_for_release(
        self,
        session: DeploySession[KubernetesSettings],
        documents: Sequence[dict[str, Any]],
        record: ReleaseRecord,
        *,
        restored: bool,
    ) -> None:
        """Wait until the Deployment among the documents is ready and answers."""
        deployment = next(document for document in documents if document["kind"] == DEPLOYMENT.kind)
        template = deployment["spec"]["template"]["metadata"]["labels"]
        example = record.release.shipment.example if self.rollout.check else None
        name, revision = deployment["metadata"]["name"], template[labels.REVISION]
        rollout = RolloutWait(session.cluster, self.serve, name, revision, session.progress, example)
        rollout.wait_until_complete(self.rollout.timeout, session.lock)

    def status(self) -> Status:
        """The state of the app."""
        status = kubernetes_status.read_kubernetes_status(
            self.cluster, self.open_releases(), by_route=self.settings.gateway is not None
        )
        if status.release is None and not status.replicas:
            self.cluster.require_namespace()
        return status

    def start_canary(
        self, session: DeploySession[KubernetesSettings], shipment: Shipment, percent: int, take_over: bool
    ) -> ReleaseRecord:
        """Start a second Deployment beside the live one."""
        return canary.start_kubernetes_canary(session, shipment, percent, take_over)

    def promote_canary(self, session: DeploySession[KubernetesSettings]) -> ReleaseRecord:
        """Roll the live Deployment to the canary, move the traffic, remove the canary."""
        return canary.promote_kubernetes_canary(session)

    def abort_canary(self, session: DeploySession[KubernetesSettings]) -> ReleaseRecord:
        """Remove the canary."""
        return canary.abort_kubernetes_canary(session)

    def eject(self, shipment: Shipment, folder: Path, format: str) -> list[Path]:
        """Write the objects as files: plain YAML, a kustomization or a Helm chart."""
        return eject.eject_documents(self.names, self.render(shipment), folder, format)
