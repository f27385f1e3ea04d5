"""One deploy from beginning to end: lock, plan, record, apply, wait, prune, and the way back when it fails."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mlapp.config import Serve
from mlapp.deploy.documents import to_yaml_all
from mlapp.deploy.k8s import labels, reach, releases
from mlapp.deploy.k8s.apply import execute, prune
from mlapp.deploy.k8s.cluster import Cluster
from mlapp.deploy.k8s.configuration import namespace
from mlapp.deploy.k8s.context import RenderContext
from mlapp.deploy.k8s.kinds import DEPLOYMENT
from mlapp.deploy.k8s.lock import Lock, LockLostError, locked
from mlapp.deploy.k8s.naming import Names
from mlapp.deploy.k8s.networking import address
from mlapp.deploy.k8s.plan import Key, Plan, ensure_namespace, make_plan
from mlapp.deploy.k8s.refusal import UnreachableError
from mlapp.deploy.k8s.releases import Record, Releases
from mlapp.deploy.k8s.rollout import Rollout
from mlapp.deploy.k8s.settings import KubernetesSettings
from mlapp.deploy.target import DeployError, Progress, Shipment


class InterruptedDeployError(DeployError):
    """Ctrl-C. `what` says in which state things were left."""

    exit_code = 130


@dataclass
class Job:
    """What a deploy, a rollback and a canary share, while the lock is held."""

    cluster: Cluster
    names: Names
    settings: KubernetesSettings
    serve: Serve
    progress: Progress
    lock: Lock

    @property
    def releases(self) -> Releases:
        """The app's releases."""
        return Releases(self.cluster, self.names)

    def ship(
        self,
        shipment: Shipment,
        documents: Sequence[dict[str, Any]],
        *,
        repeats: int | None = None,
        note: str | None = None,
        take_over: bool = False,
    ) -> Record:
        """Make `documents` the live release.

        Raises:
            UnreachableError: the server went away; the release stays `pending`, and the next deploy goes on with it.
            DeployError: it was refused, or did not come up; things are as before then, and the text says so.
        """
        try:
            records = self.releases.all()
            _refuse_canary(records)
            before = releases.live(records)
            plan = self.plan(documents, before, take_over=take_over)
            record = self._record(shipment, documents, plan, records, repeats, note)
        except KeyboardInterrupt:
            raise InterruptedDeployError("Interrupted: nothing was applied.", "Do it again when you like.") from None
        if record is not before:
            self.progress(f"release {record.number}: {plan.summary}")
        try:
            with _finished_before_interrupt():
                execute(self.cluster, plan, self.lock, self.progress)
            self.wait(documents, record)
            with _finished_before_interrupt():
                prune(self.cluster, plan, self.lock, self.progress)
                live = self.settle(record, before, records)
        except KeyboardInterrupt:
            raise self._interrupted(record) from None
        except UnreachableError:
            raise  # nothing can be taken back now
        except DeployError as error:
            raise self.take_back(record, before, documents, error) from error
        return live

    def plan(
        self,
        documents: Sequence[dict[str, Any]],
        before: Record | None,
        *,
        keep: Sequence[Key] = (),
        prune: bool = True,
        take_over: bool = False,
    ) -> Plan:
        """Try the documents, and show the warnings that the server gave."""
        earlier = before.documents if before else ()
        plan = make_plan(
            self.cluster, self.names, documents, earlier=earlier, keep=keep, prune=prune, take_over=take_over
        )
        for warning in self.cluster.warnings:
            self.progress(f"the cluster warns: {warning}")
        self.cluster.warnings.clear()
        return plan

    def wait(self, documents: Sequence[dict[str, Any]], record: Record) -> None:
        """Wait until the Deployment among the documents is up and answers."""
        deployment = next(document for document in documents if document["kind"] == DEPLOYMENT.kind)
        template = deployment["spec"]["template"]["metadata"]["labels"]
        example = record.release.shipment.example if self.settings.rollout.check else None
        rollout = Rollout(
            self.cluster, self.serve, deployment["metadata"]["name"], template[labels.REVISION], self.progress, example
        )
        try:
            rollout.wait(self.settings.rollout.timeout, self.lock)
        except UnreachableError as error:
            again = "" if isinstance(error, LockLostError) else " Then do the same again: it goes on watching."
            raise UnreachableError(
                f"{error.what} Release {record.number} is applied, and the cluster goes on rolling it out unwatched.",
                error.todo + again,
            ) from error

    def settle(self, record: Record, before: Record | None, records: Sequence[Record]) -> Record:
        """Mark the release live, the one before it superseded, and forget the oldest."""
        if record.state != "live":
            record = self.releases.mark(record, "live", url=self._given_url(record))
        if before and before.number != record.number:
            self.releases.mark(before, "superseded")
        self.releases.trim(records, self.settings.rollout.history - 1)
        return record

    def take_back(
        self, record: Record, before: Record | None, documents: Sequence[dict[str, Any]], error: DeployError
    ) -> DeployError:
        """Apply the release before again; the error to raise, which says what is live now."""
        number = record.number
        self.progress(f"release {number} failed: {error.what.splitlines()[0]}")
        reason = error.what.splitlines()[0][:500]
        with suppress(DeployError):
            if record.state != "live":
                self.releases.mark(record, "failed", reason)
        if before is None:
            return DeployError(
                f"Release {number} failed: {error.what}",
                f"{error.todo} There is no earlier release; what was made is left to be looked at: `mlapp status`, "
                "`mlapp delete`.",
            )
        if before.number == number:
            return error
        try:
            back = self.plan(before.documents, record, take_over=True)
            with _finished_before_interrupt():
                execute(self.cluster, back, self.lock, self.progress)
                prune(self.cluster, back, self.lock, self.progress)
            self.wait(before.documents, before)
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

    def url(self, shipment: Shipment) -> str:
        """Where the app answers."""
        return address(RenderContext(shipment, self.settings, self.serve), self.cluster.namespace)

    def _given_url(self, record: Record) -> str | None:
        """The address that the cluster gave the Service; None where it is no news, or there is none yet."""
        if not reach.is_given(record):
            return None
        with suppress(DeployError):  # the release is live, whether or not this can be looked up
            if url := reach.given_url(self.cluster, self.names, record):
                return url
            self.progress("the Service has no address outside yet: `mlapp status` shows it once it has")
        return None

    def _record(
        self,
        shipment: Shipment,
        documents: Sequence[dict[str, Any]],
        plan: Plan,
        records: Sequence[Record],
        repeats: int | None,
        note: str | None,
    ) -> Record:
        """The release to work on: a new one, one that was interrupted and is gone on with, or the live one."""
        text, before, begun = to_yaml_all(documents), releases.live(records), releases.interrupted(records)
        if begun and begun.objects == text:
            self.progress(f"going on with release {begun.number}, which was interrupted")
            return begun
        if begun:
            self.releases.mark(begun, "failed", "interrupted before it was up")
        elif before and before.objects == text and not plan.pending:
            self.progress(f"release {before.number} is live already: nothing to change")
            return before
        return self.releases.create(
            shipment, documents, records, by=self.author(), note=note, repeats=repeats, url=self.url(shipment)
        )

    def author(self) -> str | None:
        """Who the cluster says we are; None where it does not tell."""
        with suppress(DeployError):
            return self.cluster.who()
        return None

    def _interrupted(self, record: Record) -> InterruptedDeployError:
        return InterruptedDeployError(
            f"Interrupted: release {record.number} is applied, and the cluster goes on rolling it out unwatched.",
            "`mlapp status` shows it; deploy again to go on watching, `mlapp rollback` to go back.",
        )


@contextmanager
def begun(
    cluster: Cluster, names: Names, settings: KubernetesSettings, serve: Serve, progress: Progress
) -> Iterator[Job]:
    """A job with the lock held, on a cluster that is new enough."""
    cluster.version()
    if space := namespace(settings):
        ensure_namespace(cluster, space)  # even the lock needs one
    with locked(cluster, names) as lock:
        yield Job(cluster, names, settings, serve, progress, lock)


def _refuse_canary(records: Sequence[Record]) -> None:
    if trial := releases.canary(records):
        raise DeployError(
            f"Release {trial.number} is on trial as a canary; nothing was changed.",
            "First decide on it: `mlapp promote` or `mlapp abort`.",
        )


@contextmanager
def _finished_before_interrupt() -> Iterator[None]:
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
