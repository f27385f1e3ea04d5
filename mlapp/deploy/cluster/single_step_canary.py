"""A canary where one write splits the traffic: what is applied names both releases, each by a name of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlapp.deploy.cluster import releases
from mlapp.deploy.cluster.api_errors import UnreachableError
from mlapp.deploy.cluster.apply_plan import execute_plan, prune_objects
from mlapp.deploy.cluster.deploy_session import DeploySession, InterruptedDeployError
from mlapp.deploy.cluster.releases import ReleaseRecord
from mlapp.deploy.target import DeployError, Shipment

Documents = Sequence[dict[str, Any]]


def require_live(job: DeploySession[Any]) -> ReleaseRecord:
    """The live release that a canary is beside.

    Raises:
        DeployError: nothing is live, or a release is not decided yet.
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
    return before


def start_canary(
    job: DeploySession[Any],
    shipment: Shipment,
    percent: int,
    documents: Documents,
    before: ReleaseRecord,
    take_over: bool,
) -> ReleaseRecord:
    """Apply `documents`, which run the canary and split the traffic; `before` is the live release.

    Raises:
        UnreachableError: the server went away; what there is of the canary stays.
        DeployError: the canary is refused or does not become ready, and is removed.
    """
    plan = job.plan_changes(documents, before, prune=False, take_over=take_over)
    record = job.releases.create_record(
        shipment,
        job.target.render(shipment),
        job.releases.list_records(),
        by=job.read_author(),
        percent=percent,
        note=f"canary at {percent} %",
        url=before.release.url,
    )
    job.progress(f"release {record.number} as a canary: {plan.summary}")
    try:
        execute_plan(job.cluster, plan, job.lock, job.progress)
        job.wait_for_rollout(documents, record)
    except KeyboardInterrupt:
        _restore_live(job, before)
        job.releases.mark_state(record, "aborted", "interrupted")
        raise InterruptedDeployError(
            f"Interrupted: the canary is gone again, and release {before.number} is live.", "Start it again to try it."
        ) from None
    except UnreachableError:
        raise
    except DeployError as error:
        _restore_live(job, before)
        job.releases.mark_state(record, "failed", error.what.splitlines()[0][:500])
        raise DeployError(
            f"The canary failed: {error.what}\nIt is gone again; release {before.number} is live.", error.todo
        ) from error
    return job.releases.mark_state(record, "canary")


def promote_canary(job: DeploySession[Any]) -> ReleaseRecord:
    """Give the canary all traffic.

    Raises:
        DeployError: there is no canary, or it is refused; the previous release is live then.
    """
    records = job.releases.list_records()
    record, before = _find_canary(job, records), releases.find_live(records)
    plan = job.plan_changes(record.documents, before)
    try:
        execute_plan(job.cluster, plan, job.lock, job.progress)
        job.wait_for_rollout(record.documents, record)
    except UnreachableError:
        raise
    except DeployError as error:
        raise job.restore_release(record, before, record.documents, error) from error
    prune_objects(job.cluster, plan, job.lock, job.progress)
    return job.settle_release(record, before, records)


def abort_canary(job: DeploySession[Any]) -> ReleaseRecord:
    """Give all traffic back to the live release, and take the canary away."""
    records = job.releases.list_records()
    record, before = _find_canary(job, records), releases.find_live(records)
    if before is not None:
        _restore_live(job, before)
    return job.releases.mark_state(record, "aborted")


def _find_canary(job: DeploySession[Any], records: Sequence[ReleaseRecord]) -> ReleaseRecord:
    record = releases.find_canary(records)
    if record is None:
        raise DeployError("There is no canary.", f"Start one: `mlapp deploy --target {job.target.name} --canary 10`.")
    return record


def _restore_live(job: DeploySession[Any], before: ReleaseRecord) -> None:
    plan = job.plan_changes(before.documents, before, take_over=True)
    execute_plan(job.cluster, plan, job.lock, job.progress)
    job.wait_for_rollout(before.documents, before, restored=True)
    prune_objects(job.cluster, plan, job.lock, job.progress)
