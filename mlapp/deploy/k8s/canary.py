"""A canary: a second Deployment that gets a part of the traffic until it is promoted or aborted.

Traffic only reaches the canary once its pods answer a prediction, and leaves it before they go.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mlapp.deploy.cluster import labels, releases
from mlapp.deploy.cluster.api_errors import UnreachableError
from mlapp.deploy.cluster.apply_plan import execute_plan, prune_objects
from mlapp.deploy.cluster.change_plan import list_own_objects
from mlapp.deploy.cluster.deploy_session import DeploySession, InterruptedDeployError
from mlapp.deploy.cluster.object_kinds import DEPLOYMENT, ROUTE, SERVICE
from mlapp.deploy.cluster.releases import ReleaseRecord
from mlapp.deploy.k8s.render import render_canary, render_release
from mlapp.deploy.k8s.settings import KubernetesSettings
from mlapp.deploy.target import DeployError, Shipment

Documents = Sequence[dict[str, Any]]
Session = DeploySession[KubernetesSettings]


def start_canary(job: Session, shipment: Shipment, percent: int, take_over: bool) -> ReleaseRecord:
    """Put `shipment` beside the live release, with `percent` of the traffic.

    Raises:
        UnreachableError: the server went away; what there is of the canary stays.
        DeployError: nothing is live, or there is a canary; or this canary does not become ready, and is removed.
    """
    records = job.releases.list_records()
    before = releases.find_live(records)
    if before is None:
        raise DeployError("Nothing is live that a canary could be beside.", "Deploy once without --canary.")
    if (trial := releases.find_canary(records)) or (trial := releases.find_interrupted(records)):
        raise DeployError(
            f"Release {trial.number} is not decided yet ({trial.state}); nothing was changed.",
            "`mlapp promote` or `mlapp abort` a canary; deploy again what was interrupted.",
        )
    replicas, beside = _compute_replicas(job, percent)
    share = percent if job.settings.gateway else round(100 * replicas / (replicas + beside))
    if share != percent:
        job.progress(
            f"the canary will be {replicas} of {replicas + beside} pods, and so get about {share} % of the traffic; "
            f"targets.k8s.gateway splits it exactly"
        )
    documents = render_canary(shipment, job.settings, job.serve, replicas, percent)
    workload, traffic = _split_documents(job, documents)
    plan = job.plan_changes(workload, before, prune=False, take_over=take_over)
    job.plan_changes(traffic, before, prune=False, take_over=take_over)  # detect a refusal before anything is written
    goal = render_release(shipment, job.settings, job.serve)
    record = job.releases.create_record(
        shipment,
        goal,
        records,
        by=job.read_author(),
        percent=share,
        note=f"canary at {share} %",
        url=job.find_url(shipment),
    )
    job.progress(f"release {record.number} as a canary: {plan.summary}")
    try:
        execute_plan(job.cluster, plan, job.lock, job.progress)
        job.wait_for_rollout(workload, record)
        shift = job.plan_changes(traffic, before, prune=False, take_over=take_over)
        execute_plan(job.cluster, shift, job.lock, job.progress)
    except KeyboardInterrupt:
        _remove_canary_release(job, before)
        job.releases.mark_state(record, "aborted", "interrupted")
        raise InterruptedDeployError(
            f"Interrupted: the canary is gone again, and release {before.number} is live.", "Start it again to try it."
        ) from None
    except UnreachableError:
        raise
    except DeployError as error:
        _remove_canary_release(job, before)
        job.releases.mark_state(record, "failed", error.what.splitlines()[0][:500])
        raise DeployError(
            f"The canary failed: {error.what}\nIt is gone again; release {before.number} is live.", error.todo
        ) from error
    return job.releases.mark_state(record, "canary")


def promote_canary(job: Session) -> ReleaseRecord:
    """Make the canary the live release: first the live Deployment rolls to it, then the traffic, then the canary goes.

    Raises:
        DeployError: there is no canary, or its release does not become ready; the previous release is live then.
    """
    records = job.releases.list_records()
    record, before = _find_canary(records), releases.find_live(records)
    workload, traffic = _split_documents(job, record.documents)
    keep = [
        key
        for key, item in list_own_objects(job.cluster, job.names, (DEPLOYMENT, SERVICE)).items()
        if _is_canary_object(job, item)
    ]
    plan = job.plan_changes(
        workload, before, keep=[*keep, *((item["kind"], item["metadata"]["name"]) for item in traffic)]
    )
    try:
        execute_plan(job.cluster, plan, job.lock, job.progress)
        job.wait_for_rollout(workload, record)
    except KeyboardInterrupt:
        raise InterruptedDeployError(
            f"Interrupted: release {record.number} rolls out while its canary still serves.",
            "`mlapp promote` again to finish, `mlapp abort` to go back.",
        ) from None
    except UnreachableError:
        raise
    except DeployError as error:
        _remove_canary_release(job, before)
        raise job.restore_release(record, before, record.documents, error) from error
    _move_traffic(job, traffic)
    _remove_canary_objects(job)
    prune_objects(job.cluster, plan, job.lock, job.progress)
    return job.settle_release(record, before, records)


def abort_canary(job: Session) -> ReleaseRecord:
    """Take the canary away, and give all traffic back to the live release."""
    records = job.releases.list_records()
    record, before = _find_canary(records), releases.find_live(records)
    _remove_canary_release(job, before)
    if before:
        # A promotion that was interrupted has changed the live Deployment already.
        plan = job.plan_changes(before.documents, record)
        execute_plan(job.cluster, plan, job.lock, job.progress)
        job.wait_for_rollout(before.documents, before)
        prune_objects(job.cluster, plan, job.lock, job.progress)
    return job.releases.mark_state(record, "aborted")


def _find_canary(records: Sequence[ReleaseRecord]) -> ReleaseRecord:
    record = releases.find_canary(records)
    if record is None:
        raise DeployError("There is no canary.", "Start one: `mlapp deploy --target k8s --canary 10`.")
    return record


def _compute_replicas(job: Session, percent: int) -> tuple[int, int]:
    """Number of pods of the canary, at least one and enough for its share of the load; and of the live pods."""
    deployment = job.cluster.get_object(DEPLOYMENT, job.names.base) or {}
    beside = int(deployment.get("spec", {}).get("replicas", 1))
    return share_of_replicas(beside, percent), beside


def share_of_replicas(beside: int, percent: int) -> int:
    """How many pods get about `percent` of the traffic beside so many others; at least one."""
    return max(1, round(beside * percent / (100 - percent)))


def _split_documents(job: Session, documents: Documents) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The documents that run pods, and those that route traffic: the app's own Service and HTTPRoute."""
    traffic = [
        document
        for document in documents
        if document["kind"] in (SERVICE.kind, ROUTE.kind) and document["metadata"]["name"] == job.names.base
    ]
    return [document for document in documents if document not in traffic], traffic


def _remove_canary_release(job: Session, before: ReleaseRecord | None) -> None:
    if before:
        _move_traffic(job, _split_documents(job, before.documents)[1])
    _remove_canary_objects(job)


def _move_traffic(job: Session, traffic: Documents) -> None:
    """Route all traffic as these documents say, and wait until load balancers have noticed."""
    shift = job.plan_changes(traffic, None, prune=False, take_over=True)
    execute_plan(job.cluster, shift, job.lock, job.progress)
    if shift.pending:
        time.sleep(min(job.settings.rollout.leave, 5))


def _remove_canary_objects(job: Session) -> None:
    for item in list_own_objects(job.cluster, job.names, (DEPLOYMENT, SERVICE)).values():
        if _is_canary_object(job, item):
            job.lock.check_held()
            job.cluster.delete_object(item)
            job.progress(f"{item['kind']}/{item['metadata']['name']} removed")


def _is_canary_object(job: Session, item: dict[str, Any]) -> bool:
    return bool((item["metadata"].get("labels") or {}).get(labels.INSTANCE) == job.names.canary)
