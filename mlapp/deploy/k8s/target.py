"""The Kubernetes target: each command of the command line is one method here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from mlapp.deploy.k8s import canary, canary_analysis, eject, labels, object_kinds, pod_client, rbac, releases
from mlapp.deploy.k8s import logs as pod_logs
from mlapp.deploy.k8s import status as standing
from mlapp.deploy.k8s.change_plan import (
    Change,
    ChangePlan,
    is_managed,
    list_own_objects,
    list_prunable_kinds,
    plan_changes,
)
from mlapp.deploy.k8s.cluster import Cluster
from mlapp.deploy.k8s.config_objects import make_namespace
from mlapp.deploy.k8s.connection import connect_cluster
from mlapp.deploy.k8s.deploy_session import DeploySession, open_session
from mlapp.deploy.k8s.naming import Names
from mlapp.deploy.k8s.plan_diff import unified_diff
from mlapp.deploy.k8s.pods import is_ready
from mlapp.deploy.k8s.releases import Releases
from mlapp.deploy.k8s.render import render_release
from mlapp.deploy.k8s.settings import KubernetesSettings
from mlapp.deploy.target import DeployError, LogLine, Progress, Release, Shipment, Status, Target, ignore_progress
from mlapp.errors import UsageError


class KubernetesTarget(Target[KubernetesSettings]):
    """An app in one namespace of one cluster."""

    name = "k8s"
    settings_type = KubernetesSettings
    eject_formats: ClassVar[tuple[str, ...]] = eject.FORMATS

    @property
    def names(self) -> Names:
        """What the app's objects are called."""
        return Names(self.app)

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster; connected to when it is first needed."""
        return Cluster(connect_cluster(self.settings))

    def check(self) -> str:
        """The cluster's version, and which context and namespace would be deployed to.

        Raises:
            DeployError: it does not answer, is too old, or has no such namespace and is not to get one.
        """
        self.cluster.read_server_version()
        if make_namespace(self.settings) is None:
            self.cluster.require_namespace()
        return "version {}.{}, {}".format(*self.cluster.read_server_version(), self.cluster.place)

    def render(self, shipment: Shipment) -> list[dict[str, Any]]:
        """The documents, in the order in which they are applied."""
        return render_release(shipment, self.settings, self.serve)

    def diff(self, shipment: Shipment, *, take_over: bool = False) -> str:
        """A unified diff against the live objects, from a dry run of the server; changes nothing."""
        self.cluster.read_server_version()
        documents = self.render(shipment)
        space = make_namespace(self.settings)
        if space and self.cluster.get_object(object_kinds.NAMESPACE, space["metadata"]["name"]) is None:
            # Nothing can be tried where the namespace is still to be made, and nothing is there yet.
            return unified_diff(ChangePlan(tuple(Change(document, None, document) for document in documents)))
        before = releases.find_live(Releases(self.cluster, self.names).list_records())
        earlier = before.documents if before else ()
        return unified_diff(plan_changes(self.cluster, self.names, documents, earlier=earlier, take_over=take_over))

    def apply(self, shipment: Shipment, *, progress: Progress = ignore_progress, take_over: bool = False) -> Release:
        """Ship it: see `DeploySession.ship_release`."""
        documents = self.render(shipment)
        with self._open_session(progress) as job:
            return job.ship_release(shipment, documents, take_over=take_over).release

    def status(self) -> Status:
        """How the app stands."""
        found = standing.read_status(self.cluster, self.names, by_route=self.settings.gateway is not None)
        if found.release is None and not found.replicas:
            self.cluster.require_namespace()
        return found

    def releases(self) -> list[Release]:
        """The recorded releases, oldest first."""
        records = Releases(self.cluster, self.names).list_records()
        if not records:
            self.cluster.require_namespace()
        return [record.release for record in records]

    def rollback(self, to: int | None = None, *, progress: Progress = ignore_progress) -> Release:
        """Apply an earlier release's objects again, as a new release."""
        with self._open_session(progress) as job:
            goal = releases.choose_rollback(job.releases.list_records(), to)
            note = f"rollback to {goal.number}"
            shipment = goal.release.shipment
            return job.ship_release(shipment, goal.documents, repeats=goal.number, note=note).release

    def delete(self, *, progress: Progress = ignore_progress) -> list[str]:
        """Remove the app's objects and records. Claims, Secrets and the Namespace stay, and are named."""
        with self._open_session(progress) as job:
            records = job.releases.list_records()
            earlier = [document for record in records for document in record.documents]
            looked_at = list_prunable_kinds((), earlier)
            found = list_own_objects(self.cluster, self.names, looked_at)
            removed = []
            for kind in object_kinds.PRUNED:
                for item in found.values():
                    if item["kind"] == kind.kind and is_managed(item) and self.cluster.delete_object(item):
                        removed.append(object_kinds.object_title(item))
                        progress(f"{removed[-1]} removed")
            for item in found.values():
                if item["kind"] == object_kinds.CLAIM.kind:
                    progress(f"{object_kinds.object_title(item)} is kept: it holds data")
            return [*removed, *job.releases.remove_records(records)]

    def logs(self, *, follow: bool = False, tail: int | None = None, since: float | None = None) -> Iterator[LogLine]:
        """Lines of all pods."""
        return pod_logs.stream_logs(self.cluster, self.names, follow, tail, since)

    def predict(self, inputs: Any) -> dict[str, Any]:
        """A prediction by a ready pod, through a port-forward."""
        pods = self.cluster.list_objects(
            object_kinds.POD, f"{labels.NAME}={self.names.base},{labels.INSTANCE}={self.names.base}"
        )
        ready = [pod["metadata"]["name"] for pod in pods if is_ready(pod)]
        if not ready:
            raise DeployError(f"{self.app} has no ready pod in {self.cluster.place}.", "Look at `mlapp status`.")
        return pod_client.predict_at_pod(self.cluster, self.serve, ready[0], inputs)

    def canary(
        self, shipment: Shipment, percent: int, *, progress: Progress = ignore_progress, take_over: bool = False
    ) -> Release:
        """Put it beside the live release with `percent` of the traffic."""
        with self._open_session(progress) as job:
            return canary.start_canary(job, shipment, percent, take_over).release

    def judge(self, seconds: float, *, progress: Progress = ignore_progress) -> Release:
        """Watch the canary, then promote or abort it."""
        with self._open_session(progress) as job:
            return canary_analysis.judge_canary(job, seconds).release

    def promote(self, *, progress: Progress = ignore_progress) -> Release:
        """Make the canary live."""
        with self._open_session(progress) as job:
            return canary.promote_canary(job).release

    def abort(self, *, progress: Progress = ignore_progress) -> Release:
        """Take the canary away."""
        with self._open_session(progress) as job:
            return canary.abort_canary(job).release

    def eject(self, shipment: Shipment, folder: Path, format: str) -> list[Path]:
        """Write the objects as files: plain YAML, a kustomization or a Helm chart."""
        return eject.eject_documents(self.names, self.render(shipment), folder, format)

    def rbac(self, shipment: Shipment) -> list[dict[str, Any]]:
        """The least Role that deploying this needs; asks the kubeconfig for the namespace when none is set."""
        try:
            namespace = self.settings.namespace_name or self.cluster.namespace
        except DeployError:
            raise UsageError(
                "Which namespace is the Role for? Neither mlapp.yaml nor a kubeconfig says.",
                "Say it: --namespace team-a.",
            ) from None
        return rbac.make_rbac(self.names, self.render(shipment), namespace)

    def _open_session(self, progress: Progress) -> AbstractContextManager[DeploySession]:
        return open_session(self.cluster, self.names, self.settings, self.serve, progress)
