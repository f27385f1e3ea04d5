"""One deploy from beginning to end: lock, plan, record, apply, wait, prune, and the way back when it fails."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mlapp.config import Serve
from mlapp.deploy.k8s import labels, releases, service_address
from mlapp.deploy.k8s.api_errors import UnreachableError
from mlapp.deploy.k8s.apply_plan import execute_plan, prune_objects
from mlapp.deploy.k8s.change_plan import ChangePlan, Key, ensure_namespace, plan_changes
from mlapp.deploy.k8s.cluster import Cluster
from mlapp.deploy.k8s.config_objects import make_namespace
from mlapp.deploy.k8s.deploy_lock import DeployLock, LockLostError, hold_lock
from mlapp.deploy.k8s.naming import Names
from mlapp.deploy.k8s.networking import app_address
from mlapp.deploy.k8s.object_kinds import DEPLOYMENT
from mlapp.deploy.k8s.releases import ReleaseRecord, Releases
from mlapp.deploy.k8s.render_context import RenderContext
from mlapp.deploy.k8s.rollout import RolloutWait
from mlapp.deploy.k8s.settings import KubernetesSettings
from mlapp.deploy.target import DeployError, Progress, Shipment
from mlapp.deploy.yaml_dump import to_yaml_all


class InterruptedDeployError(DeployError):
    """Ctrl-C. `what` says in which state things were left."""

    exit_code = 130


@dataclass
class DeploySession:
    """What a deploy, a rollback and a canary share, while the lock is held."""

    cluster: Cluster
    names: Names
    settings: KubernetesSettings
    serve: Serve
    progress: Progress
    lock: DeployLock

    @property
    def releases(self) -> Releases:
        """The app's releases."""
        return Releases(self.cluster, self.names)

    def ship_release(
        self,
        shipment: Shipment,
        documents: Sequence[dict[str, Any]],
        *,
        repeats: int | None = None,
        note: str | None = None,
        take_over: bool = False,
    ) -> ReleaseRecord:
        """Make `documents` the live release.

        Raises:
            UnreachableError: the server went away; the release stays `pending`, and the next deploy goes on with it.
            DeployError: it was refused, or did not come up; things are as before then, and the text says so.
        """
        try:
            records = self.releases.list_records()
            _refuse_canary(records)
            before = releases.find_live(records)
            plan = self.plan_changes(documents, before, take_over=take_over)
            record = self._record_release(shipment, documents, plan, records, repeats, note)
        except KeyboardInterrupt:
            raise InterruptedDeployError("Interrupted: nothing was applied.", "Do it again when you like.") from None
        if record is not before:
            self.progress(f"release {record.number}: {plan.summary}")
        try:
            with _defer_interrupt():
                execute_plan(self.cluster, plan, self.lock, self.progress)
            self.wait_for_rollout(documents, record)
            with _defer_interrupt():
                prune_objects(self.cluster, plan, self.lock, self.progress)
                live = self.settle_release(record, before, records)
        except KeyboardInterrupt:
            raise self._interrupted_error(record) from None
        except UnreachableError:
            raise  # nothing can be taken back now
        except DeployError as error:
            raise self.restore_release(record, before, documents, error) from error
        return live

    def plan_changes(
        self,
        documents: Sequence[dict[str, Any]],
        before: ReleaseRecord | None,
        *,
        keep: Sequence[Key] = (),
        prune: bool = True,
        take_over: bool = False,
    ) -> ChangePlan:
        """Try the documents, and show the warnings that the server gave."""
        earlier = before.documents if before else ()
        plan = plan_changes(
            self.cluster, self.names, documents, earlier=earlier, keep=keep, prune=prune, take_over=take_over
        )
        for warning in self.cluster.warnings:
            self.progress(f"the cluster warns: {warning}")
        self.cluster.warnings.clear()
        return plan

    def wait_for_rollout(self, documents: Sequence[dict[str, Any]], record: ReleaseRecord) -> None:
        """Wait until the Deployment among the documents is up and answers."""
        deployment = next(document for document in documents if document["kind"] == DEPLOYMENT.kind)
        template = deployment["spec"]["template"]["metadata"]["labels"]
        example = record.release.shipment.example if self.settings.rollout.check else None
        rollout = RolloutWait(
            self.cluster, self.serve, deployment["metadata"]["name"], template[labels.REVISION], self.progress, example
        )
        try:
            rollout.wait_until_complete(self.settings.rollout.timeout, self.lock)
        except UnreachableError as error:
            again = "" if isinstance(error, LockLostError) else " Then do the same again: it goes on watching."
            raise UnreachableError(
                f"{error.what} Release {record.number} is applied, and the cluster goes on rolling it out unwatched.",
                error.todo + again,
            ) from error

    def settle_release(
        self, record: ReleaseRecord, before: ReleaseRecord | None, records: Sequence[ReleaseRecord]
    ) -> ReleaseRecord:
        """Mark the release live, the one before it superseded, and forget the oldest."""
        if record.state != "live":
            record = self.releases.mark_state(record, "live", url=self._find_cluster_url(record))
        if before and before.number != record.number:
            self.releases.mark_state(before, "superseded")
        self.releases.trim_records(records, self.settings.rollout.history - 1)
        return record

    def restore_release(
        self,
        record: ReleaseRecord,
        before: ReleaseRecord | None,
        documents: Sequence[dict[str, Any]],
        error: DeployError,
    ) -> DeployError:
        """Apply the release before again; the error to raise, which says what is live now."""
        number = record.number
        self.progress(f"release {number} failed: {error.what.splitlines()[0]}")
        reason = error.what.splitlines()[0][:500]
        with suppress(DeployError):
            if record.state != "live":
                self.releases.mark_state(record, "failed", reason)
        if before is None:
            return DeployError(
                f"Release {number} failed: {error.what}",
                f"{error.todo} There is no earlier release; what was made is left to be looked at: `mlapp status`, "
                "`mlapp delete`.",
            )
        if before.number == number:
            return error
        try:
            back = self.plan_changes(before.documents, record, take_over=True)
            with _defer_interrupt():
                execute_plan(self.cluster, back, self.lock, self.progress)
                prune_objects(self.cluster, back, self.lock, self.progress)
            self.wait_for_rollout(before.documents, before)
        except (DeployError, KeyboardInterrupt) as second:
            what = second.what if isinstance(second, DeployError) else "interrupted"
            return DeployError(
                f"Release {number} failed: {error.what} Going back to release {before.number} failed too: {what}",
                f"{error.todo} Then `mlapp rollback --to {before.number}`.",
            )
        self.progress(f"went back to release {before.number}")
        return DeployError(
            f"Release {number} failed: {error.what}\nWent back: release {before.number} is live.", error.todo
        )

    def find_url(self, shipment: Shipment) -> str:
        """Where the app answers."""
        return app_address(RenderContext(shipment, self.settings, self.serve), self.cluster.namespace)

    def _find_cluster_url(self, record: ReleaseRecord) -> str | None:
        """The address that the cluster gave the Service; None where it is no news, or there is none yet."""
        if not service_address.is_given_by_cluster(record):
            return None
        with suppress(DeployError):  # the release is live, whether or not this can be looked up
            if url := service_address.find_service_url(self.cluster, self.names, record):
                return url
            self.progress("the Service has no address outside yet: `mlapp status` shows it once it has")
        return None

    def _record_release(
        self,
        shipment: Shipment,
        documents: Sequence[dict[str, Any]],
        plan: ChangePlan,
        records: Sequence[ReleaseRecord],
        repeats: int | None,
        note: str | None,
    ) -> ReleaseRecord:
        """The release to work on: a new one, one that was interrupted and is gone on with, or the live one."""
        text, before, begun = to_yaml_all(documents), releases.find_live(records), releases.find_interrupted(records)
        if begun and begun.objects == text:
            self.progress(f"going on with release {begun.number}, which was interrupted")
            return begun
        if begun:
            self.releases.mark_state(begun, "failed", "interrupted before it was up")
        elif before and before.objects == text and not plan.pending:
            self.progress(f"release {before.number} is live already: nothing to change")
            return before
        return self.releases.create_record(
            shipment, documents, records, by=self.read_author(), note=note, repeats=repeats, url=self.find_url(shipment)
        )

    def read_author(self) -> str | None:
        """Who the cluster says we are; None where it does not tell."""
        with suppress(DeployError):
            return self.cluster.read_user_name()
        return None

    def _interrupted_error(self, record: ReleaseRecord) -> InterruptedDeployError:
        return InterruptedDeployError(
            f"Interrupted: release {record.number} is applied, and the cluster goes on rolling it out unwatched.",
            "`mlapp status` shows it; deploy again to go on watching, `mlapp rollback` to go back.",
        )


@contextmanager
def open_session(
    cluster: Cluster, names: Names, settings: KubernetesSettings, serve: Serve, progress: Progress
) -> Iterator[DeploySession]:
    """A job with the lock held, on a cluster that is new enough."""
    cluster.read_server_version()
    if space := make_namespace(settings):
        ensure_namespace(cluster, space)  # even the lock needs one
    with hold_lock(cluster, names) as lock:
        yield DeploySession(cluster, names, settings, serve, progress, lock)


def _refuse_canary(records: Sequence[ReleaseRecord]) -> None:
    if trial := releases.find_canary(records):
        raise DeployError(
            f"Release {trial.number} is on trial as a canary; nothing was changed.",
            "First decide on it: `mlapp promote` or `mlapp abort`.",
        )


@contextmanager
def _defer_interrupt() -> Iterator[None]:
    """Let Ctrl-C wait until the objects of a release are all written: half of them would be no release."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt
