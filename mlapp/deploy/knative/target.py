"""The Knative target: each release is a named revision, and the traffic refers to revisions by name."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlapp.deploy.cluster import canary_trial, labels, pods, single_step_canary
from mlapp.deploy.cluster.app_status import (
    find_pod_status_problems,
    find_release_status_problems,
    list_app_events,
    make_status_replicas,
)
from mlapp.deploy.cluster.deploy_session import DeploySession
from mlapp.deploy.cluster.host_names import KNATIVE, refuse_long_host_name
from mlapp.deploy.cluster.object_kinds import EVENT, KNATIVE_SERVICE, POD
from mlapp.deploy.cluster.releases import ReleaseRecord, find_canary_release, find_live_release
from mlapp.deploy.cluster.server_target import RevisionTarget
from mlapp.deploy.knative.readiness import KnativeWait, describe_knative_condition
from mlapp.deploy.knative.service import find_knative_service_revision, render_knative_release
from mlapp.deploy.knative.settings import KnativeSettings
from mlapp.deploy.target import DeployError, Shipment, Status
from mlapp.errors import UsageError

INSTALL_ADVICE = "Ask the cluster's operator to install Knative Serving, or use --target k8s."


class KnativeTarget(RevisionTarget[KnativeSettings]):
    """An app as a Knative Service in one namespace of one cluster."""

    name = "knative"
    settings_type = KnativeSettings
    checked_unconfigured = False
    service_kind = KNATIVE_SERVICE
    prunable = (KNATIVE_SERVICE,)
    watched = (KNATIVE_SERVICE,)

    def require_cluster(self) -> None:
        """Check that the cluster is new enough and has Knative Serving."""
        if self.settings.platform == "cloud_run":
            raise UsageError(
                "mlapp cannot deploy to Cloud Run itself, and targets.knative.platform is cloud_run.",
                "mlapp deploy --target knative --dry-run > .mlapp/service.yaml && "
                "gcloud run services replace .mlapp/service.yaml",
            )
        super().require_cluster()
        self.cluster.require_kind(KNATIVE_SERVICE, INSTALL_ADVICE)
        refuse_long_host_name(self.cluster, KNATIVE, self.name, self.names.base)

    def render(self, shipment: Shipment) -> list[dict[str, Any]]:
        """The Service, with all traffic on the release's revision."""
        return render_knative_release(shipment, self.settings, self.serve)

    def render_canary(self, shipment: Shipment, percent: int) -> list[dict[str, Any]]:
        """The Service with split traffic. Reads the name of the live revision from the cluster if possible."""
        try:
            live = find_live_release(self.open_releases().list_records())
        except DeployError:
            live = None
        name = find_knative_service_revision(live.documents) if live else f"{self.names.base}-live"
        return render_knative_release(shipment, self.settings, self.serve, live=name, percent=percent)

    def wait_for_release(
        self,
        session: DeploySession[KnativeSettings],
        documents: Sequence[dict[str, Any]],
        record: ReleaseRecord,
        *,
        restored: bool,
    ) -> None:
        """Wait until the Service is ready with the documents' traffic, and the revision's pods answer."""
        spec = documents[0]["spec"]
        template = spec["template"]["metadata"]
        wait = KnativeWait(
            session.cluster,
            self.serve,
            documents[0]["metadata"]["name"],
            template["labels"][labels.REVISION],
            session.progress,
            record.release.shipment.example if self.rollout.check else None,
            selector=f"{labels.NAME}={self.names.base}",
            traffic={entry["revisionName"]: entry["percent"] for entry in spec["traffic"]},
            # A new revision always starts a pod before it is ready; an earlier one can be scaled to zero.
            may_sleep=restored or record.state == "canary",
        )
        wait.wait_until_complete(self.rollout.timeout, session.lock)

    def predict(self, inputs: Any) -> dict[str, Any]:
        """A prediction by a ready pod, through a port-forward. Fails if the Service is scaled to zero."""
        try:
            return super().predict(inputs)
        except DeployError as error:
            service = self.cluster.get_object(KNATIVE_SERVICE, self.names.base) or {}
            if (url := service.get("status", {}).get("url")) and "has no ready pod" in error.what:
                raise DeployError(
                    f"{self.app} has no pod now: it is scaled to zero until a request comes to {url}.",
                    f"Use `mlapp predict --url {url}`, or set targets.knative.min_replicas to 1.",
                ) from None
            raise

    def status(self) -> Status:
        """The state of the app."""
        selector = f"{labels.APP}={self.names.base}"
        with ThreadPoolExecutor(4) as pool:
            records_future = pool.submit(self.open_releases().list_records)
            kinds = (KNATIVE_SERVICE, POD, EVENT)
            services, all_pods, events = pool.map(
                lambda kind: self.cluster.list_objects(kind, "" if kind is EVENT else selector), kinds
            )
            records = records_future.result()
        live, canary = find_live_release(records), find_canary_release(records)
        if not records:
            self.cluster.require_namespace()
        service = next((item for item in services if item["metadata"]["name"] == self.names.base), None)
        status = (service or {}).get("status", {})
        numbers = {
            find_knative_service_revision(record.documents): record.number for record in (live, canary) if record
        }
        traffic: dict[int, int] = {}
        for entry in status.get("traffic") or []:
            number = numbers.get(entry.get("revisionName"))
            if number is not None:
                traffic[number] = traffic.get(number, 0) + int(entry.get("percent") or 0)
        problems = [
            describe_knative_condition(condition)
            for condition in status.get("conditions") or []
            if condition.get("status") == "False"
        ]
        problems += find_release_status_problems(records, KNATIVE_SERVICE.kind, service is None)
        problems += find_pod_status_problems(all_pods, events)
        return Status(
            app=self.app,
            target=self.name,
            release=live.release if live else None,
            canary=canary.release if canary else None,
            desired=len(all_pods),
            ready=sum(pods.is_pod_ready(pod) for pod in all_pods),
            replicas=make_status_replicas(all_pods, records),
            traffic=traffic,
            url=status.get("url") or (live.release.url if live else None),
            events=list_app_events(events, self.names),
            problems=tuple(dict.fromkeys(problems)),
            place=self.cluster.place,
        )

    def start_canary(
        self, session: DeploySession[KnativeSettings], shipment: Shipment, percent: int, take_over: bool
    ) -> ReleaseRecord:
        """Start a second revision with a part of the traffic."""
        live, records = canary_trial.require_live_for_canary(session)
        name = find_knative_service_revision(live.documents)
        documents = render_knative_release(shipment, self.settings, self.serve, live=name, percent=percent)
        if find_knative_service_revision(documents) == name:
            raise DeployError(
                f"Release {live.number} is identical to the canary, so there is nothing to try.",
                "Change the model, the code or a setting, and deploy again.",
            )
        return single_step_canary.start_single_step_canary(
            session, shipment, percent, documents, live, records, take_over
        )

    def promote_canary(self, session: DeploySession[KnativeSettings]) -> ReleaseRecord:
        """Route all traffic to the canary's revision; no pod is started."""
        return single_step_canary.promote_single_step_canary(session)

    def abort_canary(self, session: DeploySession[KnativeSettings]) -> ReleaseRecord:
        """Route all traffic to the live revision."""
        return single_step_canary.abort_single_step_canary(session)
