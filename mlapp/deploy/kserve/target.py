"""The KServe target: an InferenceService, in Standard or Knative mode."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from mlapp.deploy.cluster import labels, object_kinds
from mlapp.deploy.cluster.deploy_session import DeploySession
from mlapp.deploy.cluster.host_names import KNATIVE, KSERVE, refuse_long_host_name
from mlapp.deploy.cluster.object_kinds import INFERENCE_SERVICE, SERVING_RUNTIME
from mlapp.deploy.cluster.releases import ReleaseRecord, find_live_release
from mlapp.deploy.cluster.server_target import RevisionTarget
from mlapp.deploy.kserve import canary, canary_documents
from mlapp.deploy.kserve.inference_service import render_kserve_release
from mlapp.deploy.kserve.installed_version import refuse_old_kserve
from mlapp.deploy.kserve.predictor import CONTAINER
from mlapp.deploy.kserve.readiness import ServiceWait
from mlapp.deploy.kserve.render_context import KServeContext
from mlapp.deploy.kserve.settings import IMAGE, KServeSettings
from mlapp.deploy.kserve.settings_check import is_readable_by_kserve, refuse_contradictory_kserve_settings
from mlapp.deploy.kserve.standard_mode import refuse_second_autoscaler
from mlapp.deploy.kserve.status import find_service_url, read_kserve_status
from mlapp.deploy.target import DeployError, Shipment, Status
from mlapp.reporting import Reporter

INSTALL_ADVICE = "Ask the cluster's operator to install KServe 0.17 or later, or use --target k8s."


class KServeTarget(RevisionTarget[KServeSettings]):
    """An app as an InferenceService in one namespace of one cluster."""

    name = "kserve"
    settings_type = KServeSettings
    checked_unconfigured = False
    service_kind = INFERENCE_SERVICE
    prunable = (
        object_kinds.ROUTE,
        object_kinds.INFERENCE_SERVICE,
        object_kinds.SERVING_RUNTIME,
        object_kinds.CONFIG_MAP,
    )
    watched = (object_kinds.DEPLOYMENT, INFERENCE_SERVICE, object_kinds.KNATIVE_REVISION)
    container = CONTAINER

    def check(self) -> str:
        """The cluster's version and location. Checks that KServe's kinds exist and the settings are consistent."""
        refuse_contradictory_kserve_settings(self.settings)
        return super().check()

    def require_cluster(self) -> None:
        """Check that the cluster is new enough, has KServe 0.17 or later, and that KServe can run the release."""
        super().require_cluster()
        self.cluster.require_kind(INFERENCE_SERVICE, INSTALL_ADVICE)
        refuse_old_kserve(self.cluster, INSTALL_ADVICE)
        if self.settings.storage_uri not in (None, IMAGE):
            self.cluster.require_kind(SERVING_RUNTIME, INSTALL_ADVICE)
        hosts = KSERVE if self.settings.mode == "standard" else KNATIVE
        refuse_long_host_name(self.cluster, hosts, self.name, f"{self.names.base}-predictor")
        if self.settings.mode == "standard" and self.settings.scaler == "keda":
            refuse_second_autoscaler(self.cluster, self.names.base)

    def fetches_model(self, model_uri: str | None) -> bool:
        """Whether KServe's storage initializer downloads the version into /mnt/models."""
        uri = self.settings.storage_uri
        return uri != IMAGE and (uri is not None or is_readable_by_kserve(model_uri))

    def render(self, shipment: Shipment) -> list[dict[str, Any]]:
        """The documents, in the order of application."""
        return render_kserve_release(shipment, self.settings, self.serve)

    def render_canary(self, shipment: Shipment, percent: int) -> list[dict[str, Any]]:
        """The documents of a canary. For `spec.canary`, reads the live InferenceService if the cluster is reachable."""
        refuse_contradictory_kserve_settings(self.settings)
        context = KServeContext(shipment, self.settings, self.serve)
        live = self._live_service if canary_documents.choose_canary_method(context) == "spec" else None
        return canary_documents.render_kserve_canary(context, percent, live)

    def wait_for_release(
        self,
        session: DeploySession[KServeSettings],
        documents: Sequence[dict[str, Any]],
        record: ReleaseRecord,
        *,
        restored: bool,
    ) -> None:
        """Wait until the InferenceService among the documents is ready and its new pods answer.

        A restored release needs no accepted route: it was live with the same route before.
        """
        service = next(document for document in documents if document["kind"] == INFERENCE_SERVICE.kind)
        predictor, name = service["spec"]["predictor"], service["metadata"]["name"]
        variant = predictor.get("name")
        wait = ServiceWait(
            session.cluster,
            self.serve,
            f"{name}-{variant}-predictor" if variant else f"{name}-predictor",
            predictor["labels"][labels.REVISION],
            session.progress,
            record.release.shipment.example if self.rollout.check else None,
            container=CONTAINER,
            selector=f"{labels.INSTANCE}={predictor['labels'][labels.INSTANCE]}",
            service=name,
            mode=self.settings.mode,
            needs_ingress=not restored and variant is None,
            percent=predictor.get("canaryTrafficPercent", 100),
            may_sleep=predictor.get("minReplicas") == 0,
        )
        wait.wait_until_complete(self.rollout.timeout, session.lock)

    def find_assigned_url(self, record: ReleaseRecord, progress: Reporter) -> str | None:
        """The URL that KServe reports; the one inside the cluster if the service has no route."""
        return find_service_url(self.cluster.get_object(INFERENCE_SERVICE, self.names.base) or {})

    def status(self) -> Status:
        """The state of the app."""
        status = read_kserve_status(self.cluster, self.open_releases(), self.settings.mode == "standard")
        if status.release is None and not status.replicas:
            self.cluster.require_namespace()
        return status

    def start_canary(
        self, session: DeploySession[KServeSettings], shipment: Shipment, percent: int, take_over: bool
    ) -> ReleaseRecord:
        """Start a canary by the method that the mode and the cluster allow: see `mlapp.deploy.kserve.canary`."""
        return canary.start_kserve_canary(session, shipment, percent, take_over)

    def promote_canary(self, session: DeploySession[KServeSettings]) -> ReleaseRecord:
        """Make the canary the live release."""
        return canary.promote_kserve_canary(session)

    def abort_canary(self, session: DeploySession[KServeSettings]) -> ReleaseRecord:
        """Remove the canary."""
        return canary.abort_kserve_canary(session)

    @cached_property
    def _live_service(self) -> dict[str, Any] | None:
        try:
            live = find_live_release(self.open_releases().list_records())
        except DeployError:
            return None
        documents = live.documents if live else ()
        return next((document for document in documents if document["kind"] == INFERENCE_SERVICE.kind), None)
