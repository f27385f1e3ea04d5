"""The Kubernetes target: each command of the command line is one method here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from mlapp.deploy.k8s import asking, canary, eject, judging, kinds, labels, rbac, releases
from mlapp.deploy.k8s import logs as pod_logs
from mlapp.deploy.k8s import status as standing
from mlapp.deploy.k8s.cluster import Cluster
from mlapp.deploy.k8s.configuration import namespace
from mlapp.deploy.k8s.connection import connect
from mlapp.deploy.k8s.diff import unified
from mlapp.deploy.k8s.job import Job, begun
from mlapp.deploy.k8s.naming import Names
from mlapp.deploy.k8s.plan import Change, Plan, is_ours, kinds_to_look_at, make_plan, objects_of
from mlapp.deploy.k8s.pods import is_ready
from mlapp.deploy.k8s.releases import Releases
from mlapp.deploy.k8s.render import render
from mlapp.deploy.k8s.settings import KubernetesSettings
from mlapp.deploy.target import DeployError, LogLine, Progress, Release, Shipment, Status, Target, silent
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
        return Cluster(connect(self.settings))

    def check(self) -> str:
        """The cluster's version, and which context and namespace would be deployed to.

        Raises:
            DeployError: it does not answer, is too old, or has no such namespace and is not to get one.
        """
        self.cluster.version()
        if namespace(self.settings) is None:
            self.cluster.require_namespace()
        return "version {}.{}, {}".format(*self.cluster.version(), self.cluster.place)

    def render(self, shipment: Shipment) -> list[dict[str, Any]]:
        """The documents, in the order in which they are applied."""
        return render(shipment, self.settings, self.serve)

    def diff(self, shipment: Shipment, *, take_over: bool = False) -> str:
        """A unified diff against the live objects, from a dry run of the server; changes nothing."""
        self.cluster.version()
        documents = self.render(shipment)
        space = namespace(self.settings)
        if space and self.cluster.get(kinds.NAMESPACE, space["metadata"]["name"]) is None:
            # Nothing can be tried where the namespace is still to be made, and nothing is there yet.
            return unified(Plan(tuple(Change(document, None, document) for document in documents)))
        before = releases.live(Releases(self.cluster, self.names).all())
        earlier = before.documents if before else ()
        return unified(make_plan(self.cluster, self.names, documents, earlier=earlier, take_over=take_over))

    def apply(self, shipment: Shipment, *, progress: Progress = silent, take_over: bool = False) -> Release:
        """Ship it: see `Job.ship`."""
        documents = self.render(shipment)
        with self._begun(progress) as job:
            return job.ship(shipment, documents, take_over=take_over).release

    def status(self) -> Status:
        """How the app stands."""
        found = standing.status(self.cluster, self.names, by_route=self.settings.gateway is not None)
        if found.release is None and not found.replicas:
            self.cluster.require_namespace()
        return found

    def releases(self) -> list[Release]:
        """The recorded releases, oldest first."""
        records = Releases(self.cluster, self.names).all()
        if not records:
            self.cluster.require_namespace()
        return [record.release for record in records]

    def rollback(self, to: int | None = None, *, progress: Progress = silent) -> Release:
        """Apply an earlier release's objects again, as a new release."""
        with self._begun(progress) as job:
            goal = releases.chosen(job.releases.all(), to)
            note = f"rollback to {goal.number}"
            shipment = goal.release.shipment
            return job.ship(shipment, goal.documents, repeats=goal.number, note=note).release

    def delete(self, *, progress: Progress = silent) -> list[str]:
        """Remove the app's objects and records. Claims, Secrets and the Namespace stay, and are named."""
        with self._begun(progress) as job:
            records = job.releases.all()
            earlier = [document for record in records for document in record.documents]
            looked_at = kinds_to_look_at((), earlier)
            found = objects_of(self.cluster, self.names, looked_at)
            removed = []
            for kind in kinds.PRUNED:
                for item in found.values():
                    if item["kind"] == kind.kind and is_ours(item) and self.cluster.delete(item):
                        removed.append(kinds.title(item))
                        progress(f"{removed[-1]} removed")
            for item in found.values():
                if item["kind"] == kinds.CLAIM.kind:
                    progress(f"{kinds.title(item)} is kept: it holds data")
            return [*removed, *job.releases.remove(records)]

    def logs(self, *, follow: bool = False, tail: int | None = None, since: float | None = None) -> Iterator[LogLine]:
        """Lines of all pods."""
        return pod_logs.logs(self.cluster, self.names, follow, tail, since)

    def predict(self, inputs: Any) -> dict[str, Any]:
        """A prediction by a ready pod, through a port-forward."""
        pods = self.cluster.list(kinds.POD, f"{labels.NAME}={self.names.base},{labels.INSTANCE}={self.names.base}")
        ready = [pod["metadata"]["name"] for pod in pods if is_ready(pod)]
        if not ready:
            raise DeployError(f"{self.app} has no ready pod in {self.cluster.place}.", "Look at `mlapp status`.")
        return asking.predict(self.cluster, self.serve, ready[0], inputs)

    def canary(
        self, shipment: Shipment, percent: int, *, progress: Progress = silent, take_over: bool = False
    ) -> Release:
        """Put it beside the live release with `percent` of the traffic."""
        with self._begun(progress) as job:
            return canary.start(job, shipment, percent, take_over).release

    def judge(self, seconds: float, *, progress: Progress = silent) -> Release:
        """Watch the canary, then promote or abort it."""
        with self._begun(progress) as job:
            return judging.judge(job, seconds).release

    def promote(self, *, progress: Progress = silent) -> Release:
        """Make the canary live."""
        with self._begun(progress) as job:
            return canary.promote(job).release

    def abort(self, *, progress: Progress = silent) -> Release:
        """Take the canary away."""
        with self._begun(progress) as job:
            return canary.abort(job).release

    def eject(self, shipment: Shipment, folder: Path, format: str) -> list[Path]:
        """Write the objects as files: plain YAML, a kustomization or a Helm chart."""
        return eject.eject(self.names, self.render(shipment), folder, format)

    def rbac(self, shipment: Shipment) -> list[dict[str, Any]]:
        """The least Role that deploying this needs; asks the kubeconfig for the namespace when none is set."""
        try:
            namespace = self.settings.namespace_name or self.cluster.namespace
        except DeployError:
            raise UsageError(
                "Which namespace is the Role for? Neither mlapp.yaml nor a kubeconfig says.",
                "Say it: --namespace team-a.",
            ) from None
        return rbac.rbac(self.names, self.render(shipment), namespace)

    def _begun(self, progress: Progress) -> AbstractContextManager[Job]:
        return begun(self.cluster, self.names, self.settings, self.serve, progress)
