"""A canary: a second Deployment that gets a part of the traffic until it is promoted or aborted.

Traffic only reaches the canary once its pods answer a prediction, and leaves it before they go.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mlapp.deploy.cluster import canary_trial, labels
from mlapp.deploy.cluster.apply_plan import execute_plan, prune_planned_objects
from mlapp.deploy.cluster.change_plan import list_own_objects
from mlapp.deploy.cluster.deploy_session import DeploySession
from mlapp.deploy.cluster.object_kinds import DEPLOYMENT, ROUTE, SERVICE
from mlapp.deploy.cluster.releases import ReleaseRecord
from mlapp.deploy.k8s.render import render_canary, render_release
from mlapp.deploy.k8s.settings import KubernetesSettings
from mlapp.deploy.target import Shipment

Documents = Sequence[dict[str, Any]]
Session = DeploySession[KubernetesSettings]


def start_canary(job: Session, shipment: Shipment, percent: int, take_over: bool) -> ReleaseRecord:
    """Start `shipment` beside the live release, with `percent` of the traffic.

    Raises:
        UnreachableError: the server became unreachable; the canary stays as it is.
        DeployError: nothing is live, there is already a canary, or this canary did not become ready and was removed.
    """
    before, records = canary_trial.require_live_for_canary(job)
    replicas, beside = _choose_canary_replicas(job, percent)
    share = percent if job.settings.gateway else round(100 * replicas / (replicas + beside))
    if share != percent:
        job.progress(
            f"the canary has {replicas} of {replicas + beside} pods and gets about {share} % of the traffic; "
            f"targets.k8s.gateway gives an exact share"
        )
    documents = render_canary(shipment, job.settings, job.serve, replicas, percent)
    workload, traffic = _split_canary_documents(job, documents)
    plan = job.plan_changes(workload, before, prune=False, take_over=take_over)
    job.plan_changes(traffic, before, prune=False, take_over=take_over)  # detect a refusal before anything is written
    goal = render_release(shipment, job.settings, job.serve)
    record = canary_trial.record_canary_trial(job, shipment, goal, records, share, job.target.find_url(shipment))
    job.progress(f"release {record.number} as a canary: {plan.summary}")
    with canary_trial.undo_failed_canary_start(job, record, before, lambda: _remove_canary_release(job, before)):
        execute_plan(job.cluster, plan, job.lock, job.progress)
        job.wait_for_rollout(workload, record)
        shift = job.plan_changes(traffic, before, prune=False, take_over=take_over)
        execute_plan(job.cluster, shift, job.lock, job.progress)
    return job.releases.mark_state(record, "canary")


def promote_canary(job: Session) -> ReleaseRecord:
    """Make the canary the live release: roll the live Deployment to it, move the traffic, remove the canary.

    Raises:
        DeployError: there is no canary, or its release does not become ready; the previous release stays live.
    """
    record, before, records = canary_trial.require_canary_trial(job)
    workload, traffic = _split_canary_documents(job, record.documents)
    keep = [
        key
        for key, item in list_own_objects(job.cluster, job.names, (DEPLOYMENT, SERVICE)).items()
        if _is_canary_object(job, item)
    ]
    plan = job.plan_changes(
        workload, before, keep=[*keep, *((item["kind"], item["metadata"]["name"]) for item in traffic)]
    )
    with canary_trial.undo_failed_canary_promotion(job, record, before, lambda: _remove_canary_release(job, before)):
        execute_plan(job.cluster, plan, job.lock, job.progress)
        job.wait_for_rollout(workload, record)
    _move_k8s_canary_traffic(job, traffic)
    _remove_canary_objects(job)
    prune_planned_objects(job.cluster, plan, job.lock, job.progress)
    return job.settle_release(record, before, records)


def abort_canary(job: Session) -> ReleaseRecord:
    """Remove the canary and route all traffic back to the live release."""
    record, before, _ = canary_trial.require_canary_trial(job)
    _remove_canary_release(job, before)
    if before:
        # An interrupted promotion has already changed the live Deployment.
        plan = job.plan_changes(before.documents, record)
        execute_plan(job.cluster, plan, job.lock, job.progress)
        job.wait_for_rollout(before.documents, before)
        prune_planned_objects(job.cluster, plan, job.lock, job.progress)
    return job.releases.mark_state(record, "aborted")


def _choose_canary_replicas(job: Session, percent: int) -> tuple[int, int]:
    """The number of canary pods (at least one, and enough for their share of the load) and of live pods."""
    deployment = job.cluster.get_object(DEPLOYMENT, job.names.base) or {}
    beside = int(deployment.get("spec", {}).get("replicas", 1))
    return compute_canary_replicas(beside, percent), beside


def compute_canary_replicas(beside: int, percent: int) -> int:
    """The number of pods, at least one, that get about `percent` of the traffic beside `beside` other pods."""
    return max(1, round(beside * percent / (100 - percent)))


def _split_canary_documents(job: Session, documents: Documents) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The workload documents, and those that route traffic: the app's own Service and HTTPRoute."""
    traffic = [
        document
        for document in documents
        if document["kind"] in (SERVICE.kind, ROUTE.kind) and document["metadata"]["name"] == job.names.base
    ]
    return [document for document in documents if document not in traffic], traffic


def _remove_canary_release(job: Session, before: ReleaseRecord | None) -> None:
    if before:
        _move_k8s_canary_traffic(job, _split_canary_documents(job, before.documents)[1])
    _remove_canary_objects(job)


def _move_k8s_canary_traffic(job: Session, traffic: Documents) -> None:
    """Route the traffic according to these documents, and wait until load balancers have updated."""
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
