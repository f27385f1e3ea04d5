"""A canary for targets that split the traffic in one write: the applied documents name both releases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlapp.deploy.cluster import canary_trial
from mlapp.deploy.cluster.apply_plan import execute_change_plan, prune_planned_objects
from mlapp.deploy.cluster.canary_trial import Records
from mlapp.deploy.cluster.deploy_session import DeploySession
from mlapp.deploy.cluster.releases import ReleaseRecord
from mlapp.deploy.target import Shipment

Documents = Sequence[dict[str, Any]]


def start_single_step_canary(
    session: DeploySession[Any],
    shipment: Shipment,
    percent: int,
    documents: Documents,
    before: ReleaseRecord,
    records: Records,
    take_over: bool,
) -> ReleaseRecord:
    """Apply `documents`, which run the canary and split the traffic.

    Args:
        before: the live release.
        records: all recorded releases.

    Raises:
        UnreachableError: the server became unreachable; the canary stays as it is.
        DeployError: the canary was refused or did not become ready, and has been removed.
    """
    plan = session.plan_changes(documents, before, prune=False, take_over=take_over)
    goal = session.target.render(shipment)
    record = canary_trial.record_canary_trial(session, shipment, goal, records, percent, before.release.url)
    session.progress(f"release {record.number} as a canary: {plan.summary}")
    with canary_trial.undo_failed_canary_start(
        session, record, before, lambda: _restore_live_in_single_step(session, before)
    ):
        execute_change_plan(session.cluster, plan, session.lock, session.progress)
        session.wait_for_rollout(documents, record)
    return session.releases.mark_state(record, "canary")


def promote_single_step_canary(session: DeploySession[Any]) -> ReleaseRecord:
    """Route all traffic to the canary.

    Raises:
        DeployError: there is no canary, or it was refused; the previous release stays live.
    """
    record, before, records = canary_trial.require_canary_trial(session)
    plan = session.plan_changes(record.documents, before)
    with canary_trial.undo_failed_canary_promotion(session, record, before, lambda: None):
        execute_change_plan(session.cluster, plan, session.lock, session.progress)
        session.wait_for_rollout(record.documents, record)
    prune_planned_objects(session.cluster, plan, session.lock, session.progress)
    return session.settle_release(record, before, records)


def abort_single_step_canary(session: DeploySession[Any]) -> ReleaseRecord:
    """Route all traffic back to the live release and remove the canary."""
    record, before, _ = canary_trial.require_canary_trial(session)
    if before is not None:
        _restore_live_in_single_step(session, before)
    return session.releases.mark_state(record, "aborted")


def _restore_live_in_single_step(session: DeploySession[Any], before: ReleaseRecord) -> None:
    plan = session.plan_changes(before.documents, before, take_over=True)
    execute_change_plan(session.cluster, plan, session.lock, session.progress)
    session.wait_for_rollout(before.documents, before, restored=True)
    prune_planned_objects(session.cluster, plan, session.lock, session.progress)
