"""Allows one deploy at a time: a Lease that is held and renewed while objects are changed.

The Lease of a killed deploy expires after 30 s. The protocol is that of leader election with coordination.k8s.io/v1;
an expired Lease is taken over with `resourceVersion`, so that only one of two deploys succeeds. Times are the server's,
because the clocks of the deploying machines can differ by more than the duration of a Lease.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.api_errors import ApiError, UnreachableError
from mlapp.deploy.cluster.naming import Names
from mlapp.deploy.cluster.object_kinds import LEASE
from mlapp.deploy.local_user import read_local_user
from mlapp.deploy.target import DeployError

LEASE_SECONDS = 30
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


class LockLostError(UnreachableError):
    """The lock was lost. Its current holder decides about the release; nothing is rolled back."""


class DeployLock:
    """A held lock. Call `check_held` before each change."""

    def __init__(self) -> None:
        self.lost = threading.Event()

    def check_held(self) -> None:
        """Raise `LockLostError` if the API server was unreachable for longer than the Lease is valid."""
        if self.lost.is_set():
            raise LockLostError(
                "Stopped: the API server was unreachable for so long that another deploy of this app may have started.",
                "Check `mlapp status`, then deploy again to resume.",
            )


@contextmanager
def hold_deploy_lock(cluster: Cluster, names: Names) -> Iterator[DeployLock]:
    """Hold the app's lock.

    Raises:
        DeployError: another deploy holds it. The message says who, and since when.
    """
    holder = f"{read_local_user() or os.getuid()}@{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    lease = _acquire_lock_lease(cluster, names, holder)
    lock, released = DeployLock(), threading.Event()
    renewer = threading.Thread(target=_renew_lock_lease, args=(cluster, names, holder, lock, released), daemon=True)
    renewer.start()
    try:
        yield lock
    finally:
        released.set()
        if not lock.lost.is_set():
            with suppress(DeployError):
                cluster.delete_object(lease)


def _acquire_lock_lease(cluster: Cluster, names: Names, holder: str) -> dict[str, Any]:
    document = _make_lock_lease(names, holder, cluster.read_server_time())
    try:
        return cluster.create_object(document)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
    lease = cluster.get_object(LEASE, names.lock)
    if lease is None:
        return cluster.create_object(document)
    spec = lease.get("spec") or {}
    renew_time = _parse_lock_lease_time(spec.get("renewTime"))
    if renew_time and cluster.read_server_time() < renew_time + timedelta(
        seconds=spec.get("leaseDurationSeconds", LEASE_SECONDS)
    ):
        who = spec.get("holderIdentity", "somebody").rpartition("-")[0]
        since = _parse_lock_lease_time(spec.get("acquireTime"))
        when = f" since {since:%H:%M:%S} UTC" if since else ""
        raise DeployError(
            f"{names.app} is being deployed by {who}{when}; nothing was changed.",
            "Wait until it ends; `mlapp status` shows its progress.",
        )
    document["metadata"]["resourceVersion"] = lease["metadata"]["resourceVersion"]
    try:
        return cluster.replace_object(document)
    except ApiError as error:
        if error.code == 409:
            raise DeployError(f"Another deploy of {names.app} has just started.", "Wait until it has ended.") from None
        raise


def _renew_lock_lease(cluster: Cluster, names: Names, holder: str, lock: DeployLock, released: threading.Event) -> None:
    last_renewal = time.monotonic()
    while not released.wait(LEASE_SECONDS / 3):
        try:
            lease = cluster.get_object(LEASE, names.lock)
            if lease is None or lease["spec"].get("holderIdentity") != holder:
                lock.lost.set()
                return
            lease["spec"]["renewTime"] = cluster.read_server_time().strftime(TIME_FORMAT)
            cluster.replace_object(lease)
            last_renewal = time.monotonic()
        except DeployError:
            if time.monotonic() - last_renewal > LEASE_SECONDS:
                lock.lost.set()
                return


def _make_lock_lease(names: Names, holder: str, start: datetime) -> dict[str, Any]:
    now = start.strftime(TIME_FORMAT)
    own_labels = {labels.APP: names.base, labels.MANAGED_BY: "mlapp", labels.RECORD: "lock"}
    spec = {"holderIdentity": holder, "leaseDurationSeconds": LEASE_SECONDS, "acquireTime": now, "renewTime": now}
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {"name": names.lock, "labels": own_labels},
        "spec": spec,
    }


def _parse_lock_lease_time(text: str | None) -> datetime | None:
    if not text:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
