"""Server-side apply of a plan, and removal of objects that are no longer rendered."""

from __future__ import annotations

from typing import Any

from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.api_errors import UnreachableError
from mlapp.deploy.cluster.change_plan import HANDOVER, ChangePlan, is_managed_object
from mlapp.deploy.cluster.deploy_lock import DeployLock
from mlapp.deploy.cluster.object_kinds import AUTOSCALER, DEPLOYMENT
from mlapp.deploy.target import DeployError
from mlapp.reporting import Reporter

VERBS = {"create": "created", "change": "changed"}


def execute_change_plan(cluster: Cluster, plan: ChangePlan, lock: DeployLock, progress: Reporter) -> None:
    """Write every change except the removals.

    Raises:
        DeployError: the server refused or became unreachable; the message lists what was written.
    """
    written: list[str] = []
    try:
        for change in plan.removals:
            if change.document["kind"] == AUTOSCALER.kind:
                lock.check_held()
                cluster.delete_object(change.document)  # first, or the autoscaler would overwrite the replica count
                written.append(change.title)
        for change in plan.changes:
            if change.action not in VERBS:
                continue
            lock.check_held()
            if change.handover and change.before:
                cluster.apply_object(_keep_only_planned_replicas(change.before), manager=HANDOVER, force=True)
            cluster.apply_object(change.document, force=change.force)
            written.append(change.title)
            progress(f"{change.title} {VERBS[change.action]}")
    except DeployError as error:
        unwritten = [change.title for change in plan.pending if change.title not in written]
        if isinstance(error, UnreachableError) or written:
            error_type = UnreachableError if isinstance(error, UnreachableError) else DeployError
            raise error_type(
                f"{error.what} Written by then: {', '.join(written) or 'nothing'}; "
                f"not written: {', '.join(unwritten)}.",
                f"{error.todo} Then deploy again: the deploy continues from there.",
            ) from error
        raise


def prune_planned_objects(cluster: Cluster, plan: ChangePlan, lock: DeployLock, progress: Reporter) -> None:
    """Remove objects that are no longer rendered, if their kind is prunable and mlapp applied them."""
    for change in plan.removals:
        lock.check_held()
        if is_managed_object(change.document) and cluster.delete_object(change.document):
            progress(f"{change.title} removed")


def _keep_only_planned_replicas(deployment: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.kind,
        "metadata": {"name": deployment["metadata"]["name"]},
        "spec": {"replicas": deployment["spec"]["replicas"]},
    }
