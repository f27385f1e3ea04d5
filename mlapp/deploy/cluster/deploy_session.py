"""One deploy from start to end: lock, plan, record, apply, wait, prune, and restore on failure."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mlapp.config import Serve
from mlapp.deploy.cluster import releases
from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.api_errors import UnreachableError
from mlapp.deploy.cluster.apply_plan import execute_change_plan, prune_planned_objects
from mlapp.deploy.cluster.change_plan import (
    ChangePlan,
    Key,
    ensure_namespace,
    list_own_objects,
    list_prunable_kinds,
    plan_changes,
)
from mlapp.deploy.cluster.deploy_lock import DeployLock, LockLostError, hold_deploy_lock
from mlapp.deploy.cluster.naming import Names
from mlapp.deploy.cluster.object_kinds import object_title
from mlapp.deploy.cluster.releases import ReleaseRecord, Releases
from mlapp.deploy.cluster.settings import ClusterSection
from mlapp.deploy.target import DeployError, Shipment
from mlapp.deploy.yaml_dump import dump_yaml_documents
from mlapp.reporting import Reporter

if TYPE_CHECKING:
    from mlapp.deploy.cluster.cluster_target import ClusterTarget

S = TypeVar("S", bound=ClusterSection)


class InterruptedDeployError(DeployError):
    """The deploy was interrupted with Ctrl-C. `what` describes the resulting state."""

    exit_code = 130


@dataclass
class DeploySession(Generic[S]):
    """State shared by a deploy, a rollback and a canary while the lock is held.

    `target` provides the parts that differ between cluster targets: the kinds of objects, how to wait for a release,
    and its address.
    """

    cluster: Cluster
    names: Names
    target: ClusterTarget[S]
    progress: Reporter
    lock: DeployLock

    @property
    def settings(self) -> S:
        """The target's settings."""
        return self.target.settings

    @property
    def serve(self) -> Serve:
        """The server's settings."""
        return self.target.serve

    @property
    def releases(self) -> Releases:
        """The app's releases."""
        return self.target.open_releases()

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
            UnreachableError: the server is unreachable; the release stays `pending`, and the next deploy continues it.
            DeployError: the release was refused or did not become ready. The message reports the restored state.
        """
        try:
            records = self.releases.list_records()
            _refuse_deploy_beside_canary(records)
            before = releases.find_live_release(records)
            plan = self.plan_changes(documents, before, take_over=take_over)
            record = self._record_deployed_release(shipment, documents, plan, records, repeats, note)
        except KeyboardInterrupt:
            raise InterruptedDeployError(
                "Interrupted: nothing was applied.", "Run the command again to retry."
            ) from None
        if record is not before:
            self.progress(f"release {record.number}: {plan.summary}")
        try:
            with _defer_deploy_interrupt():
                execute_change_plan(self.cluster, plan, self.lock, self.progress)
            self.wait_for_rollout(documents, record)
            with _defer_deploy_interrupt():
                prune_planned_objects(self.cluster, plan, self.lock, self.progress)
                live = self.settle_release(record, before, records)
        except KeyboardInterrupt:
            raise self._make_interrupted_deploy_error(record) from None
        except UnreachableError:
            raise  # without the server, nothing can be restored
        except DeployError as error:
            raise self.restore_release(record, before, error) from error
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
        """Dry-run the documents and report the server's warnings."""
        old_documents = before.documents if before else ()
        plan = plan_changes(
            self.cluster,
            self.names,
            documents,
            prunable=self.target.prunable,
            old_documents=old_documents,
            keep=keep,
            prune=prune,
            take_over=take_over,
        )
        for warning in self.cluster.warnings:
            self.progress(f"the cluster warns: {warning}")
        self.cluster.warnings.clear()
        return plan

    def wait_for_rollout(
        self, documents: Sequence[dict[str, Any]], record: ReleaseRecord, *, restored: bool = False
    ) -> None:
        """Wait until the documents' workload is ready and answers; `restored` if they were live before."""
        try:
            self.target.wait_for_release(self, documents, record, restored=restored)
        except UnreachableError as error:
            hint = "" if isinstance(error, LockLostError) else " Then deploy again to continue watching."
            raise UnreachableError(
                f"{error.what} Release {record.number} is applied; the cluster continues the rollout, but mlapp no "
                f"longer watches it.",
                error.todo + hint,
            ) from error

    def settle_release(
        self, record: ReleaseRecord, before: ReleaseRecord | None, records: Sequence[ReleaseRecord]
    ) -> ReleaseRecord:
        """Mark the release live and the previous one superseded, and remove the oldest records."""
        if record.state != "live":
            record = self.releases.mark_state(record, "live", url=self._find_cluster_url(record))
        if before and before.number != record.number:
            self.releases.mark_state(before, "superseded")
        self.releases.trim_records(records, self.target.rollout.history - 1)
        return record

    def restore_release(self, record: ReleaseRecord, before: ReleaseRecord | None, error: DeployError) -> DeployError:
        """Apply the previous release again. Returns the error to raise, which states the live release."""
        number = record.number
        self.progress(f"release {number} failed: {error.what.splitlines()[0]}")
        reason = error.what.splitlines()[0][:500]
        with suppress(DeployError):
            if record.state != "live":
                self.releases.mark_state(record, "failed", reason)
        if before is None:
            return DeployError(
                f"Release {number} failed: {error.what}",
                f"{error.todo} There is no earlier release; {self._describe_kept_objects(record)}",
            )
        if before.number == number:
            return error
        try:
            plan = self.plan_changes(before.documents, record, take_over=True)
            with _defer_deploy_interrupt():
                execute_change_plan(self.cluster, plan, self.lock, self.progress)
                prune_planned_objects(self.cluster, plan, self.lock, self.progress)
            self.wait_for_rollout(before.documents, before, restored=True)
        except (DeployError, KeyboardInterrupt) as rollback_error:
            what = rollback_error.what if isinstance(rollback_error, DeployError) else "interrupted"
            return DeployError(
                f"Release {number} failed: {error.what} The rollback to release {before.number} failed too: {what}",
                f"{error.todo} Then `mlapp rollback --to {before.number}`.",
            )
        self.progress(f"rolled back to release {before.number}")
        return DeployError(
            f"Release {number} failed: {error.what}\nRolled back: release {before.number} is live.", error.todo
        )

    def _describe_kept_objects(self, record: ReleaseRecord) -> str:
        """What a failed first release left in the cluster, and what to do with it."""
        try:
            kinds = list_prunable_kinds(self.target.prunable, record.documents)
            kept = list_own_objects(self.cluster, self.names, kinds)
        except DeployError:
            return "see what exists with `mlapp status`, or remove it with `mlapp delete`."
        if not kept:
            return "nothing of it exists in the cluster."
        titles = ", ".join(map(object_title, kept.values()))
        return f"these objects are kept for inspection: {titles}. See `mlapp status`, or remove them: `mlapp delete`."

    def _find_cluster_url(self, record: ReleaseRecord) -> str | None:
        """The URL that the cluster assigned; None if it is already known or not yet assigned."""
        with suppress(DeployError):  # the release is live even if this lookup fails
            return self.target.find_assigned_url(record, self.progress)
        return None

    def _record_deployed_release(
        self,
        shipment: Shipment,
        documents: Sequence[dict[str, Any]],
        plan: ChangePlan,
        records: Sequence[ReleaseRecord],
        repeats: int | None,
        note: str | None,
    ) -> ReleaseRecord:
        """The record to use: a new one, an interrupted one to continue, or the live one."""
        text = dump_yaml_documents(documents)
        live, interrupted = releases.find_live_release(records), releases.find_interrupted_release(records)
        if interrupted and interrupted.objects == text:
            self.progress(f"resuming the interrupted release {interrupted.number}")
            return interrupted
        if interrupted:
            self.releases.mark_state(interrupted, "failed", "interrupted before it was ready")
        elif live and live.objects == text and not plan.pending:
            self.progress(f"release {live.number} is live already: nothing to change")
            return live
        return self.releases.create_record(
            shipment,
            documents,
            records,
            by=self.read_deploy_author(),
            note=note,
            repeats=repeats,
            url=self.target.find_url(shipment),
        )

    def read_deploy_author(self) -> str | None:
        """The name by which the cluster knows this user; None if it does not report one."""
        with suppress(DeployError):
            return self.cluster.read_user_name()
        return None

    def _make_interrupted_deploy_error(self, record: ReleaseRecord) -> InterruptedDeployError:
        return InterruptedDeployError(
            f"Interrupted: release {record.number} is applied; the cluster continues the rollout, but mlapp no "
            f"longer watches it.",
            "`mlapp status` shows it; deploy again to continue watching, or run `mlapp rollback`.",
        )


@contextmanager
def open_deploy_session(target: ClusterTarget[S], progress: Reporter) -> Iterator[DeploySession[S]]:
    """A session that holds the lock, on a cluster that meets the target's requirements."""
    target.require_cluster()
    if namespace := target.make_namespace():
        ensure_namespace(target.cluster, namespace)  # even the lock needs it
    with hold_deploy_lock(target.cluster, target.names) as lock:
        yield DeploySession(target.cluster, target.names, target, progress, lock)


def _refuse_deploy_beside_canary(records: Sequence[ReleaseRecord]) -> None:
    if canary := releases.find_canary_release(records):
        raise DeployError(
            f"Release {canary.number} is still a canary; nothing was changed.",
            "Run `mlapp promote` or `mlapp abort` first.",
        )


@contextmanager
def _defer_deploy_interrupt() -> Iterator[None]:
    """Defer Ctrl-C and SIGTERM until all objects of a release are written, so that no release is half applied."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals: list[int] = []
    old_handlers = {
        number: signal.signal(number, lambda number, _: signals.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)
    if signals:
        raise KeyboardInterrupt
