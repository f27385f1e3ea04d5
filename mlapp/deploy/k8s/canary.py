"""A release on trial: a second Deployment that gets a part of the traffic, until it is promoted or aborted.

Traffic only reaches the canary once its pods answer a prediction, and leaves it before they go.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mlapp.deploy.k8s import labels, releases
from mlapp.deploy.k8s.apply import execute, prune
from mlapp.deploy.k8s.job import InterruptedDeployError, Job
from mlapp.deploy.k8s.kinds import DEPLOYMENT, ROUTE, SERVICE
from mlapp.deploy.k8s.plan import objects_of
from mlapp.deploy.k8s.refusal import UnreachableError
from mlapp.deploy.k8s.releases import Record
from mlapp.deploy.k8s.render import render, render_canary
from mlapp.deploy.target import DeployError, Shipment

Documents = Sequence[dict[str, Any]]


def start(job: Job, shipment: Shipment, percent: int, take_over: bool) -> Record:
    """Put `shipment` beside the live release, with `percent` of the traffic.

    Raises:
        UnreachableError: the server went away; what there is of the canary stays.
        DeployError: nothing is live, a canary is on trial already, or the canary does not come up; it is gone then.
    """
    records = job.releases.all()
    before = releases.live(records)
    if before is None:
        raise DeployError("Nothing is live that a canary could be beside.", "Deploy once without --canary.")
    if (trial := releases.canary(records)) or (trial := releases.interrupted(records)):
        raise DeployError(
            f"Release {trial.number} is not decided yet ({trial.state}); nothing was changed.",
            "`mlapp promote` or `mlapp abort` a canary; deploy again what was interrupted.",
        )
    replicas, beside = _replicas(job, percent)
    share = percent if job.settings.gateway else round(100 * replicas / (replicas + beside))
    if share != percent:
        job.progress(
            f"the canary will be {replicas} of {replicas + beside} pods, and so get about {share} % of the traffic; "
            f"targets.k8s.gateway splits it exactly"
        )
    documents = render_canary(shipment, job.settings, job.serve, replicas, percent)
    workload, traffic = _split(job, documents)
    plan = job.plan(workload, before, prune=False, take_over=take_over)
    job.plan(traffic, before, prune=False, take_over=take_over)  # a refusal of it must come before anything is written
    goal = render(shipment, job.settings, job.serve)
    record = job.releases.create(
        shipment, goal, records, by=job.author(), percent=share, note=f"canary at {share} %", url=job.url(shipment)
    )
    job.progress(f"release {record.number} as a canary: {plan.summary}")
    try:
        execute(job.cluster, plan, job.lock, job.progress)
        job.wait(workload, record)
        shift = job.plan(traffic, before, prune=False, take_over=take_over)
        execute(job.cluster, shift, job.lock, job.progress)
    except KeyboardInterrupt:
        _remove(job, before)
        job.releases.mark(record, "aborted", "interrupted")
        raise InterruptedDeployError(
            f"Interrupted: the canary is gone again, and release {before.number} is live.", "Start it again to try it."
        ) from None
    except UnreachableError:
        raise
    except DeployError as error:
        _remove(job, before)
        job.releases.mark(record, "failed", error.what.splitlines()[0][:500])
        raise DeployError(
            f"The canary failed: {error.what}\nIt is gone again; release {before.number} is live.", error.todo
        ) from error
    return job.releases.mark(record, "canary")


def promote(job: Job) -> Record:
    """Make the canary the live release: first the live Deployment rolls to it, then the traffic, then the canary goes.

    Raises:
        DeployError: there is no canary, or its release does not come up; the release before is live then.
    """
    records = job.releases.all()
    record, before = _on_trial(records), releases.live(records)
    workload, traffic = _split(job, record.documents)
    keep = [
        key for key, item in objects_of(job.cluster, job.names, (DEPLOYMENT, SERVICE)).items() if _is_canary(job, item)
    ]
    plan = job.plan(workload, before, keep=[*keep, *((item["kind"], item["metadata"]["name"]) for item in traffic)])
    try:
        execute(job.cluster, plan, job.lock, job.progress)
        job.wait(workload, record)
    except KeyboardInterrupt:
        raise InterruptedDeployError(
            f"Interrupted: release {record.number} rolls out while its canary still serves.",
            "`mlapp promote` again to finish, `mlapp abort` to go back.",
        ) from None
    except UnreachableError:
        raise
    except DeployError as error:
        _remove(job, before)
        raise job.take_back(record, before, record.documents, error) from error
    _take_traffic(job, traffic)
    _remove_objects(job)
    prune(job.cluster, plan, job.lock, job.progress)
    return job.settle(record, before, records)


def abort(job: Job) -> Record:
    """Take the canary away, and give all traffic back to the live release."""
    records = job.releases.all()
    record, before = _on_trial(records), releases.live(records)
    _remove(job, before)
    if before:
        # A promotion that was interrupted has changed the live Deployment already.
        plan = job.plan(before.documents, record)
        execute(job.cluster, plan, job.lock, job.progress)
        job.wait(before.documents, before)
        prune(job.cluster, plan, job.lock, job.progress)
    return job.releases.mark(record, "aborted")


def _on_trial(records: Sequence[Record]) -> Record:
    record = releases.canary(records)
    if record is None:
        raise DeployError("There is no canary.", "Start one: `mlapp deploy --target k8s --canary 10`.")
    return record


def _replicas(job: Job, percent: int) -> tuple[int, int]:
    """Pods of the canary, enough for its part of the load and at least one; and the live pods that it is beside."""
    deployment = job.cluster.get(DEPLOYMENT, job.names.base) or {}
    beside = int(deployment.get("spec", {}).get("replicas", 1))
    return max(1, round(beside * percent / (100 - percent))), beside


def _split(job: Job, documents: Documents) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What runs, and what says where the traffic goes: the app's own Service and HTTPRoute."""
    traffic = [
        document
        for document in documents
        if document["kind"] in (SERVICE.kind, ROUTE.kind) and document["metadata"]["name"] == job.names.base
    ]
    return [document for document in documents if document not in traffic], traffic


def _remove(job: Job, before: Record | None) -> None:
    if before:
        _take_traffic(job, _split(job, before.documents)[1])
    _remove_objects(job)


def _take_traffic(job: Job, traffic: Documents) -> None:
    """Send all traffic where these documents say, and wait until load balancers have heard of it."""
    shift = job.plan(traffic, None, prune=False, take_over=True)
    execute(job.cluster, shift, job.lock, job.progress)
    if shift.pending:
        time.sleep(min(job.settings.rollout.leave, 5))


def _remove_objects(job: Job) -> None:
    for item in objects_of(job.cluster, job.names, (DEPLOYMENT, SERVICE)).values():
        if _is_canary(job, item):
            job.lock.check()
            job.cluster.delete(item)
            job.progress(f"{item['kind']}/{item['metadata']['name']} removed")


def _is_canary(job: Job, item: dict[str, Any]) -> bool:
    return bool((item["metadata"].get("labels") or {}).get(labels.INSTANCE) == job.names.canary)
