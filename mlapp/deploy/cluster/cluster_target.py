"""The base of every target in a Kubernetes cluster. A subclass defines its objects and how a release becomes ready.

Releases, lock, plan, diff, logs, predictions and canary analysis are shared by all of them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from mlapp.deploy.abilities import CompareQuality
from mlapp.deploy.cluster import canary_analysis, labels, object_kinds, pod_client, releases
from mlapp.deploy.cluster import logs as pod_logs
from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.canary_analysis import RequestCounts, parse_request_counts, request_pod_metrics
from mlapp.deploy.cluster.change_plan import (
    Change,
    ChangePlan,
    diff_plan,
    is_managed_object,
    list_own_objects,
    list_prunable_kinds,
    plan_changes,
)
from mlapp.deploy.cluster.connection import connect_cluster
from mlapp.deploy.cluster.deploy_session import DeploySession, open_deploy_session
from mlapp.deploy.cluster.namespace import make_namespace
from mlapp.deploy.cluster.naming import Names
from mlapp.deploy.cluster.object_kinds import Kind
from mlapp.deploy.cluster.pods import is_pod_ready
from mlapp.deploy.cluster.rbac import make_rbac
from mlapp.deploy.cluster.releases import ReleaseRecord, Releases
from mlapp.deploy.cluster.settings import Canary, ClusterSection, Rollout
from mlapp.deploy.target import DeployError, LogLine, Release, Shipment, Target, ignore_progress
from mlapp.errors import UsageError
from mlapp.reporting import Reporter

S = TypeVar("S", bound=ClusterSection)


class ClusterTarget(Target[S]):
    """An app in one namespace of one cluster."""

    unsupported_options: ClassVar[frozenset[str]] = frozenset()
    prunable: ClassVar[tuple[Kind, ...]]
    """The kinds of object that the target creates and may remove, in the order of removal."""
    watched: ClassVar[tuple[Kind, ...]]
    """The kinds, besides pods and events, to watch while a release starts."""
    container: ClassVar[str] = labels.CONTAINER
    """Name of the server's container in each pod."""

    @property
    def names(self) -> Names:
        """Names of the app's objects."""
        return Names(self.app)

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster; connects on first use."""
        return Cluster(connect_cluster(self.settings, f"targets.{self.name}"))

    @property
    def rollout(self) -> Rollout:
        """How a release starts: `rollout` of the settings."""
        return self.settings.rollout

    @property
    def canary_limits(self) -> Canary:
        """The conditions for aborting a canary: `canary` of the settings."""
        return self.settings.canary

    @property
    def pod_selector(self) -> str:
        """Labels of the live release's pods."""
        return f"{labels.NAME}={self.names.base},{labels.INSTANCE}={self.names.base}"

    def select_release_pods(self, record: ReleaseRecord) -> str:
        """Labels of the pods of a live or canary release."""
        instance = self.names.canary if record.state == "canary" else self.names.base
        return f"{labels.INSTANCE}={instance},{labels.NAME}={self.names.base}"

    def read_counts(self, pod: str, record: ReleaseRecord) -> RequestCounts | None:
        """A pod's counts of the requests to a release since it started; None if it answers with an error.

        Raises:
            ApiError: the pod cannot be reached.
        """
        text = request_pod_metrics(self.cluster, self.serve, pod)
        return None if text is None else parse_request_counts(text)

    @abstractmethod
    def wait_for_release(
        self, session: DeploySession[S], documents: Sequence[dict[str, Any]], record: ReleaseRecord, *, restored: bool
    ) -> None:
        """Wait until the workload of the documents is ready and answers.

        Args:
            documents: the applied documents: all of a release, or only its workload.
            record: the release that they belong to.
            restored: the release was live before, and is applied again because a later release failed.

        Raises:
            RolloutError: the release does not become ready; includes the reason.
        """

    @abstractmethod
    def start_canary(
        self, session: DeploySession[S], shipment: Shipment, percent: int, take_over: bool
    ) -> ReleaseRecord:
        """Start `shipment` beside the live release, with `percent` of the traffic."""

    @abstractmethod
    def promote_canary(self, session: DeploySession[S]) -> ReleaseRecord:
        """Make the canary the live release."""

    @abstractmethod
    def abort_canary(self, session: DeploySession[S]) -> ReleaseRecord:
        """Remove the canary and route all traffic back to the live release."""

    @abstractmethod
    def render_canary(self, shipment: Shipment, percent: int) -> list[dict[str, Any]]:
        """The documents of a canary, as far as the settings determine them."""

    def require_cluster(self) -> None:
        """Check that the cluster meets the target's requirements, before anything is written.

        Raises:
            DeployError: the cluster is too old, or an operator is missing.
        """
        self.cluster.read_server_version()

    def make_namespace(self) -> dict[str, Any] | None:
        """The Namespace, if mlapp creates it."""
        return make_namespace(self.settings.namespace)

    def find_url(self, shipment: Shipment) -> str | None:
        """The URL that the app will have, if the settings determine it."""
        return None

    def find_assigned_url(self, record: ReleaseRecord, progress: Reporter) -> str | None:
        """The URL that the cluster assigned to a live release; None if it is already known."""
        return None

    def open_releases(self) -> Releases:
        """The app's releases, as the cluster records them."""
        return Releases(self.cluster, self.names, self.name)

    def check(self) -> str:
        """The cluster's version, and the context and namespace to deploy to.

        Raises:
            DeployError: the cluster does not answer or is too old, or the namespace does not exist and mlapp does not
                create it.
        """
        self.require_cluster()
        if self.make_namespace() is None:
            self.cluster.require_namespace()
        return "version {}.{}, {}".format(*self.cluster.read_server_version(), self.cluster.place)

    def diff(self, shipment: Shipment, *, take_over: bool = False) -> str:
        """A unified diff against the live objects, from a server-side dry run; changes nothing."""
        self.require_cluster()
        documents = self.render(shipment)
        namespace = self.make_namespace()
        if namespace and self.cluster.get_object(object_kinds.NAMESPACE, namespace["metadata"]["name"]) is None:
            # A dry run needs the namespace. Without one, every object is new.
            return diff_plan(ChangePlan(tuple(Change(document, None, document) for document in documents)))
        live = releases.find_live_release(self.open_releases().list_records())
        old_documents = live.documents if live else ()
        plan = plan_changes(
            self.cluster,
            self.names,
            documents,
            prunable=self.prunable,
            old_documents=old_documents,
            take_over=take_over,
        )
        return diff_plan(plan)

    def apply(self, shipment: Shipment, *, progress: Reporter = ignore_progress, take_over: bool = False) -> Release:
        """Ship the release: see `DeploySession.ship_release`."""
        documents = self.render(shipment)
        with open_deploy_session(self, progress) as session:
            return session.ship_release(shipment, documents, take_over=take_over).release

    def releases(self) -> list[Release]:
        """The recorded releases, oldest first."""
        records = self.open_releases().list_records()
        if not records:
            self.cluster.require_namespace()
        return [record.release for record in records]

    def rollback(self, to: int | None = None, *, progress: Reporter = ignore_progress) -> Release:
        """Apply an earlier release's objects again, as a new release."""
        with open_deploy_session(self, progress) as session:
            goal = releases.choose_rollback_release(session.releases.list_records(), to)
            note = f"rollback to {goal.number}"
            shipment = goal.release.shipment
            return session.ship_release(shipment, goal.documents, repeats=goal.number, note=note).release

    def delete(self, *, progress: Reporter = ignore_progress) -> list[str]:
        """Remove the app's objects and records. Claims, Secrets and the Namespace stay; kept claims are reported."""
        with open_deploy_session(self, progress) as session:
            records = session.releases.list_records()
            documents = [document for record in records for document in record.documents]
            kinds = list_prunable_kinds(self.prunable, (), documents)
            objects = list_own_objects(self.cluster, self.names, kinds)
            removed_titles = []
            for kind in self.prunable:
                for item in objects.values():
                    if item["kind"] == kind.kind and is_managed_object(item) and self.cluster.delete_object(item):
                        removed_titles.append(object_kinds.object_title(item))
                        progress(f"{removed_titles[-1]} removed")
            for item in objects.values():
                if item["kind"] == object_kinds.CLAIM.kind:
                    progress(f"{object_kinds.object_title(item)} is kept: it contains data")
            return [*removed_titles, *session.releases.remove_records(records)]

    def rbac(self, shipment: Shipment) -> list[dict[str, Any]]:
        """The minimal Role for deploying the shipment. The namespace defaults to the kubeconfig's."""
        try:
            namespace = self.settings.namespace_name or self.cluster.namespace
        except DeployError:
            raise UsageError(
                "The Role has no namespace: neither mlapp.yaml nor a kubeconfig names one.",
                "Name it: --namespace team-a.",
            ) from None
        documents = [*self.render(shipment), *self.render_canary(shipment, 10)]
        return make_rbac(self.names, documents, self.prunable, self.watched, namespace)

    def logs(self, *, follow: bool = False, tail: int | None = None, since: float | None = None) -> Iterator[LogLine]:
        """Lines of all pods."""
        return pod_logs.stream_pod_logs(self.cluster, self.names, follow, tail, since, self.container)

    def predict(self, inputs: Any) -> dict[str, Any]:
        """A prediction by a ready pod, through a port-forward."""
        pods = self.cluster.list_objects(object_kinds.POD, self.pod_selector)
        ready = [pod["metadata"]["name"] for pod in pods if is_pod_ready(pod)]
        if not ready:
            raise DeployError(f"{self.app} has no ready pod in {self.cluster.place}.", "Look at `mlapp status`.")
        return pod_client.predict_at_pod(self.cluster, self.serve, ready[0], inputs)

    def canary(
        self, shipment: Shipment, percent: int, *, progress: Reporter = ignore_progress, take_over: bool = False
    ) -> Release:
        """Start the shipment beside the live release, with `percent` of the traffic."""
        with open_deploy_session(self, progress) as session:
            return self.start_canary(session, shipment, percent, take_over).release

    def judge(
        self, seconds: float, *, progress: Reporter = ignore_progress, compare_quality: CompareQuality | None = None
    ) -> Release:
        """Watch the canary, then promote or abort it."""
        with open_deploy_session(self, progress) as session:
            return canary_analysis.judge_canary(session, seconds, compare_quality).release

    def promote(self, *, progress: Reporter = ignore_progress) -> Release:
        """Make the canary live."""
        with open_deploy_session(self, progress) as session:
            return self.promote_canary(session).release

    def abort(self, *, progress: Reporter = ignore_progress) -> Release:
        """Remove the canary."""
        with open_deploy_session(self, progress) as session:
            return self.abort_canary(session).release
