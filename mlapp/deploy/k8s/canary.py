"""A canary: a second Deployment that gets a part of the traffic until it is promoted or aborted.

Traffic only reaches the canary once its pods answer a prediction, and leaves it before they go.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mlapp.deploy.cluster import canary_trial, labels
from mlapp.deploy.cluster.apply_plan import execute_change_plan, prune_planned_objects
from mlapp.deploy.cluster.change_plan import list_own_objects
from mlapp.deploy.cluster.deploy_session import DeploySession
from mlapp.deploy.cluster.object_kinds import DEPLOYMENT, ROUTE, SERVICE
from mlapp.deploy.cluster.releases import ReleaseRecord
from mlapp.deploy.k8s.render import render_kubernetes_canary, render_kubernetes_release
from mlapp.deploy.k8s.settings import KubernetesSettings
from mlapp.deploy.target import Shipment

Documents = Sequence[dict[str, Any]]
Session = DeploySession[KubernetesSettings]


def start_kubernetes_canary(session: Session, shipment: Shipment, percent: int, take_over: bool) -> ReleaseRecord:
    """Start `shipment` beside the live release, with `percent` of the traffic.

    Raises:
        UnreachableError: the server became unreachable; the canary stays as it is.
        DeployError: nothing is live, there is already a canary, or this canary did not become ready and was removed.
    """
    live, records = canary_trial.require_live_for_canary(session)
    replicas, live_replicas = _choose_canary_replicas(session, percent)
    share = percent if session.settings.gateway else round(100 * replicas / (replicas + live_replicas))
    if share != percent:
        session.progress(
            f"the canary has {replicas} of {replicas + live_replicas} pods and gets about {share} % of the traffic; "
            f"targets.k8s.gateway gives an exact share"
        )
    documents = render_kubernetes_canary(shipment, session.settings, session.serve, replicas, percent)
    workload, traffic = _split_canary_documents(session, documents)
    plan = session.plan_changes(workload, live, prune=False, take_over=take_over)
    session.plan_changes(traffic, live, prune=False, take_over=take_over)  # detect a refusal before anything is written
    documents_after_promotion = render_kubernetes_release(shipment, session.settings, session.serve)
    record = canary_trial.record_canary_trial(
        session, shipment, documents_after_promotion, records, share, session.target.find_url(shipment)
    )
    session.progress(f"release {record.number} as a canary: {plan.summary}")
    with canary_trial.undo_failed_canary_start(session, record, live, lambda: _remove_canary_release(session, live)):
        execute_change_plan(session.cluster, plan, session.lock, session.progress)
        session.wait_for_rollout(workload, record)
        traffic_plan = session.plan_changes(traffic, live, prune=False, take_over=take_over)
        execute_change_plan(session.cluster, traffic_plan, session.lock, session.progress)
    return session.releases.mark_state(record, "canary")


def promote_kubernetes_canary(session: Session) -> ReleaseRecord:
    """Make the canary the live release: roll the live Deployment to it, move the traffic, remove the canary.

    Raises:
        DeployError: there is no canary, or its release does not become ready; the previous release stays live.
    """
    record, live, records = canary_trial.require_canary_trial(session)
    workload, traffic = _split_canary_documents(session, record.documents)
    kept_keys = [
        key
        for key, item in list_own_objects(session.cluster, session.names, (DEPLOYMENT, SERVICE)).items()
        if _is_canary_object(session, item)
    ]
    plan = session.plan_changes(
        workload, live, keep=[*kept_keys, *((item["kind"], item["metadata"]["name"]) for item in traffic)]
    )
    with canary_trial.undo_failed_canary_promotion(
        session, record, live, lambda: _remove_canary_release(session, live)
    ):
        execute_change_plan(session.cluster, plan, session.lock, session.progress)
        session.wait_for_rollout(workload, record)
    _move_k8s_canary_traffic(session, traffic)
    _remove_canary_objects(session)
    prune_planned_objects(session.cluster, plan, session.lock, session.progress)
    return session.settle_release(record, live, records)


def abort_kubernetes_canary(session: Session) -> ReleaseRecord:
    """Remove the canary and route all traffic back to the live release."""
    record, live, _ = canary_trial.require_canary_trial(session)
    _remove_canary_release(session, live)
    if live:
        # An interrupted promotion has already changed the live Deployment.
        plan = session.plan_changes(live.documents, record)
        execute_change_plan(session.cluster, plan, session.lock, session.progress)
        session.wait_for_rollout(live.documents, live)
        prune_planned_objects(session.cluster, plan, session.lock, session.progress)
    return session.releases.mark_state(record, "aborted")


def _choose_canary_replicas(session: Session, percent: int) -> tuple[int, int]:
    """The number of canary pods, enough for their share of the load, and the number of live pods."""
    deployment = session.cluster.get_object(DEPLOYMENT, session.names.base) or {}
    live_replicas = int(deployment.get("spec", {}).get("replicas", 1))
    return compute_canary_replicas(live_replicas, percent), live_replicas


def compute_canary_replicas(live_replicas: int, percent: int) -> int:
    """The number of pods, at least one, that get about `percent` of the traffic beside `live_replicas` other pods."""
    return max(1, round(live_replicas * percent / (100 - percent)))


def _split_canary_documents(
    session: Session, documents: Documents
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The workload documents, and those that route traffic: the app's own Service and HTTPRoute."""
    traffic = [
        document
        for document in documents
        if document["kind"] in (SERVICE.kind, ROUTE.kind) and document["metadata"]["name"] == session.names.base
    ]
    return [document for document in documents if document not in traffic], traffic


def _remove_canary_release(session: Session, live: ReleaseRecord | None) -> None:
    if live:
        _move_k8s_canary_traffic(session, _split_canary_documents(session, live.documents)[1])
    _remove_canary_objects(session)


def _move_k8s_canary_traffic(session: Session, traffic: Documents) -> None:
    """Route the traffic according to these documents, and wait until load balancers have updated."""
    plan = session.plan_changes(traffic, None, prune=False, take_over=True)
    execute_change_plan(session.cluster, plan, session.lock, session.progress)
    if plan.pending:
        time.sleep(min(session.settings.rollout.leave, 5))


def _remove_canary_objects(session: Session) -> None:
    for item in list_own_objects(session.cluster, session.names, (DEPLOYMENT, SERVICE)).values():
        if _is_canary_object(session, item):
            session.lock.check_held()
            session.cluster.delete_object(item)
            session.progress(f"{item['kind']}/{item['metadata']['name']} removed")


def _is_canary_object(session: Session, item: dict[str, Any]) -> bool:
    return bool((item["metadata"].get("labels") or {}).get(labels.INSTANCE) == session.names.canary)
