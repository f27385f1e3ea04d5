"""The Seldon Core 2 target: Seldon's MLServer loads an export of the version from a bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlapp.config import Serve
from mlapp.deploy.cluster import canary_trial, labels, single_step_canary
from mlapp.deploy.cluster import logs as pod_logs
from mlapp.deploy.cluster.app_status import (
    find_pod_status_problems,
    find_release_status_problems,
    list_app_events,
    make_status_replicas,
)
from mlapp.deploy.cluster.canary_analysis import RequestCounts, request_pod_metrics
from mlapp.deploy.cluster.cluster_target import ClusterTarget
from mlapp.deploy.cluster.deploy_session import DeploySession
from mlapp.deploy.cluster.object_kinds import EVENT, POD, SELDON_EXPERIMENT, SELDON_MODEL, SELDON_SERVER, SERVICE
from mlapp.deploy.cluster.releases import ReleaseRecord, find_canary_release, find_live_release
from mlapp.deploy.cluster.rollout import RolloutError
from mlapp.deploy.seldon.mesh import predict_through_mesh
from mlapp.deploy.seldon.model_counts import PORT as AGENT_PORT
from mlapp.deploy.seldon.model_counts import parse_model_counts
from mlapp.deploy.seldon.objects import (
    SERVER_CONTAINER,
    refuse_contradictory_seldon_settings,
    render_seldon_canary,
    render_seldon_release,
)
from mlapp.deploy.seldon.readiness import describe_seldon_conditions, wait_for_seldon_objects
from mlapp.deploy.seldon.settings import SeldonSettings
from mlapp.deploy.target import DeployError, LogLine, Release, Shipment, Status
from mlapp.errors import UsageError
from mlapp.reporting import Reporter
from mlapp.request_body import RequestBody

INSTALL_ADVICE = "Ask the cluster's operator to install Seldon Core 2, or use --target k8s."
SERVER_LABEL = "seldon-server-name"


class SeldonTarget(ClusterTarget[SeldonSettings]):
    """An app as a Model of Seldon Core 2 in one namespace of one cluster."""

    name = "seldon"
    settings_type = SeldonSettings
    checked_unconfigured = False
    needs_registry = False
    ships_image = False
    unsupported_options = frozenset({"--image"})  # Seldon's own server loads an export of the version
    prunable = (SELDON_EXPERIMENT, SELDON_MODEL, SELDON_SERVER)
    watched = (SERVICE,)  # for finding the mesh's pods
    container = SERVER_CONTAINER

    def check(self) -> str:
        """The cluster's version and location. Checks that Seldon's kinds exist and the settings are complete."""
        refuse_contradictory_seldon_settings(self.settings)
        return super().check()

    def require_cluster(self) -> None:
        """Check that the cluster is new enough, and has Seldon Core 2 and a Server that can run the model.

        Raises:
            DeployError: neither the cluster nor the settings have a Server.
        """
        super().require_cluster()
        self.cluster.require_kind(SELDON_MODEL, INSTALL_ADVICE)

    def render(self, shipment: Shipment) -> list[dict[str, Any]]:
        """The documents, in the order of application."""
        return render_seldon_release(shipment, self.settings)

    def render_canary(self, shipment: Shipment, percent: int) -> list[dict[str, Any]]:
        """The documents of a canary."""
        return render_seldon_canary(shipment, self.settings, percent)

    def apply(self, shipment: Shipment, *, progress: Reporter = lambda _: None, take_over: bool = False) -> Release:
        """Ship the release, after checking that a Server can run it."""
        self.require_cluster()
        self._require_server()
        return super().apply(shipment, progress=progress, take_over=take_over)

    def wait_for_release(
        self,
        session: DeploySession[SeldonSettings],
        documents: Sequence[dict[str, Any]],
        record: ReleaseRecord,
        *,
        restored: bool,
    ) -> None:
        """Wait for each object's conditions, then request a prediction from each model through Seldon's mesh."""
        wait_for_seldon_objects(session, documents, self.rollout.timeout)
        example = record.release.shipment.example
        if example is None or not self.rollout.check:
            return
        for document in documents:
            if document["kind"] == SELDON_MODEL.kind:
                name = document["metadata"]["name"]
                try:
                    response = predict_through_mesh(self.cluster, name, example)
                except UsageError as error:
                    session.progress(f"Model/{name} was not tested with a prediction: {error.what}")
                except DeployError as error:
                    raise RolloutError(error.what, error.todo) from None
                else:
                    session.progress(f"Model/{name} answers: {str(response['predictions'])[:60]}")

    def predict(self, inputs: Any) -> dict[str, Any]:
        """A prediction through Seldon's mesh. Only JSON, which is converted to Open Inference Protocol tensors."""
        if isinstance(inputs, RequestBody):
            try:
                inputs = json.loads(inputs.content)
            except ValueError:
                raise UsageError(
                    f"Seldon does not accept {inputs.media_type}.", "Give the features as JSON records."
                ) from None
            if isinstance(inputs, dict) and set(inputs) == {"inputs"}:
                inputs = inputs["inputs"]
        return predict_through_mesh(self.cluster, self.names.base, inputs)

    def logs(self, *, follow: bool = False, tail: int | None = None, since: float | None = None) -> Iterator[LogLine]:
        """Log lines of the Server's pods, which can run other models too."""
        return pod_logs.stream_pod_logs(
            self.cluster, self.names, follow, tail, since, self.container, self._server_selector
        )

    def status(self) -> Status:
        """The state of the app."""
        selector = f"{labels.APP}={self.names.base}"
        selectors = {POD: self._server_selector, EVENT: ""}
        kinds = (SELDON_MODEL, SELDON_SERVER, SELDON_EXPERIMENT, POD, EVENT)
        with ThreadPoolExecutor(6) as pool:
            records_future = pool.submit(self.open_releases().list_records)
            models, servers, experiments, all_pods, events = pool.map(
                lambda kind: self.cluster.list_objects(kind, selectors.get(kind, selector)), kinds
            )
            records = records_future.result()
        if not records:
            self.cluster.require_namespace()
        live, canary = find_live_release(records), find_canary_release(records)
        weights = {
            candidate["name"]: int(candidate["weight"])
            for item in experiments
            for candidate in item["spec"].get("candidates") or []
        }
        traffic = {live.number: 100} if live else {}
        if live and canary and weights:
            share = round(100 * weights.get(self.names.canary, 0) / max(1, sum(weights.values())))
            traffic = {live.number: 100 - share, canary.number: share}
        problems = [
            f"{item['kind']}/{item['metadata']['name']}: {text}"
            for item in (*servers, *models, *experiments)
            if (text := describe_seldon_conditions(item)) != "ready"
        ]
        problems += find_release_status_problems(records, SELDON_MODEL.kind, not models)
        problems += find_pod_status_problems(all_pods, events)
        model = next((item for item in models if item["metadata"]["name"] == self.names.base), {})
        return Status(
            app=self.app,
            target=self.name,
            release=live.release if live else None,
            canary=canary.release if canary else None,
            desired=int(model.get("spec", {}).get("replicas", 1)) if model else 0,
            ready=int(model.get("status", {}).get("availableReplicas") or model.get("status", {}).get("replicas") or 0),
            replicas=make_status_replicas(all_pods, ()),
            traffic=traffic,
            events=list_app_events(events, self.names),
            problems=tuple(problems),
            place=self.cluster.place,
        )

    def select_release_pods(self, record: ReleaseRecord) -> str:
        """Select the Server's pods: MLServer runs both models of an Experiment in the same pods, if they fit."""
        return self._server_selector

    def read_counts(self, pod: str, record: ReleaseRecord) -> RequestCounts | None:
        """The counts of the release's model by Seldon's agent in a pod of the Server."""
        text = request_pod_metrics(self.cluster, Serve(), pod, AGENT_PORT)
        model = self.names.canary if record.state == "canary" else self.names.base
        return None if text is None else parse_model_counts(text, model)

    def start_canary(
        self, session: DeploySession[SeldonSettings], shipment: Shipment, percent: int, take_over: bool
    ) -> ReleaseRecord:
        """Create a second Model and a weighted Experiment."""
        live, records = canary_trial.require_live_for_canary(session)
        documents = self.render_canary(shipment, percent)
        return single_step_canary.start_single_step_canary(
            session, shipment, percent, documents, live, records, take_over
        )

    def promote_canary(self, session: DeploySession[SeldonSettings]) -> ReleaseRecord:
        """Load the version in the live Model while the Experiment still serves; then remove the Experiment."""
        return single_step_canary.promote_single_step_canary(session)

    def abort_canary(self, session: DeploySession[SeldonSettings]) -> ReleaseRecord:
        """Remove the Experiment, then the second Model."""
        return single_step_canary.abort_single_step_canary(session)

    @property
    def _server_name(self) -> str | None:
        if self.settings.server_image:
            return self.names.base
        return self.settings.server

    @property
    def _server_selector(self) -> str:
        return f"{SERVER_LABEL}={self._server_name}" if self._server_name else SERVER_LABEL

    def _require_server(self) -> None:
        """Check, before anything is written, that some Server can run the model."""
        if self.settings.server_image:
            return
        servers = [item["metadata"]["name"] for item in self.cluster.list_objects(SELDON_SERVER)]
        if self.settings.server and self.settings.server not in servers:
            raise DeployError(
                f"There is no Server '{self.settings.server}' in {self.cluster.place}; it has "
                f"{', '.join(servers) or 'none'}.",
                "Change targets.seldon.server, or set server_image: mlapp then creates a Server.",
            )
        if not servers:
            raise DeployError(
                f"There is no Server in {self.cluster.place} that could run the model.",
                "Set targets.seldon.server_image to an image with MLServer and the export's requirements.txt.",
            )
