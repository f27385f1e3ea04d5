"""Start, promote and abort a canary on KServe, by the methods of `canary_documents`."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

from mlapp.deploy.cluster import canary_trial
from mlapp.deploy.cluster.api_errors import ApiError
from mlapp.deploy.cluster.apply_plan import execute_plan, prune_planned_objects
from mlapp.deploy.cluster.deploy_session import DeploySession
from mlapp.deploy.cluster.host_names import KSERVE, refuse_long_host_name
from mlapp.deploy.cluster.object_kinds import INFERENCE_SERVICE, ROUTE
from mlapp.deploy.cluster.releases import ReleaseRecord
from mlapp.deploy.kserve.canary_documents import (
    Method,
    add_canary,
    apply_canary_patches,
    choose_canary_method,
    make_canary_route,
    name_canary_service,
    render_kserve_canary_workload,
)
from mlapp.deploy.kserve.inference_service import render_release
from mlapp.deploy.kserve.installed_version import lacks_spec_canary
from mlapp.deploy.kserve.readiness import read_newest_revision_share
from mlapp.deploy.kserve.render_context import KServeContext
from mlapp.deploy.kserve.settings import KServeSettings
from mlapp.deploy.target import DeployError, Shipment

Session = DeploySession[KServeSettings]
Documents = Sequence[dict[str, Any]]

ACCEPTED_WITHIN = 10.0
TRAFFIC_WITHIN = 60.0


def start_canary(job: Session, shipment: Shipment, percent: int, take_over: bool) -> ReleaseRecord:
    """Start `shipment` beside the live release, with `percent` of the traffic.

    Raises:
        UnreachableError: the server became unreachable; the canary stays as it is.
        DeployError: nothing is live, nothing can split traffic, or the canary did not become ready and was removed.
    """
    before, records = canary_trial.require_live_for_canary(job)
    context = KServeContext(shipment, job.settings, job.serve)
    method = choose_canary_method(context)
    if method == "spec" and lacks_spec_canary(job.cluster):
        method = "second"
    route = _require_kserve_canary_split(job, before, method)
    live = _select_inference_service(before.documents)
    documents = render_kserve_canary_workload(context, percent, method, live)
    try:
        plan = job.plan_changes(documents, before, prune=False, take_over=take_over)
    except ApiError as error:
        if method != "spec" or "canary" not in error.message:
            raise
        method = "second"  # KServe before 0.20 has no `spec.canary`
        documents = render_kserve_canary_workload(context, percent, method)
        plan = job.plan_changes(documents, before, prune=False, take_over=take_over)
    if method == "second":
        refuse_long_host_name(job.cluster, KSERVE, "kserve", name_canary_service(context))
    traffic: list[dict[str, Any]] = []
    if route is not None:
        traffic = apply_canary_patches(context, [make_canary_route(context, percent, route["spec"])])
        job.plan_changes(traffic, before, prune=False, take_over=take_over)  # a refusal must come before any write
    goal = render_release(shipment, job.settings, job.serve)
    record = canary_trial.record_canary_trial(job, shipment, goal, records, percent, before.release.url)
    job.progress(f"release {record.number} as a canary: {plan.summary}")
    with canary_trial.undo_failed_canary_start(job, record, before, lambda: _remove_kserve_canary(job, before, record)):
        execute_plan(job.cluster, plan, job.lock, job.progress)
        job.wait_for_rollout(_select_awaited_objects(documents), record)
        if traffic and not _has_kserve_weights(job):
            shift = job.plan_changes(traffic, before, prune=False, take_over=take_over)
            execute_plan(job.cluster, shift, job.lock, job.progress)
            _wait_until_route_accepted(job, traffic[0]["metadata"]["name"])
    return job.releases.mark_state(record, "canary")


def promote_canary(job: Session) -> ReleaseRecord:
    """Make the canary the live release: roll the live pods to it, move the traffic, remove the canary.

    In Knative mode, its revision gets all traffic and no pod is started.

    Raises:
        DeployError: there is no canary, or its release does not become ready; the previous release stays live.
    """
    record, before, records = canary_trial.require_canary_trial(job)
    goal = record.documents
    keeping = goal
    current = _find_canary_inference_service(job)
    if current is not None and (trials := current["spec"].get("canary")):
        keeping = copy.deepcopy(goal)
        add_canary(_select_inference_service(keeping), trials)  # it serves until the live pods are ready
    keep = [("HTTPRoute", _name_kserve_canary_route(job)), ("InferenceService", job.names.canary)]
    plan = job.plan_changes(keeping, before, keep=keep)
    with canary_trial.undo_failed_canary_promotion(job, record, before, lambda: _remove_canary_split(job)):
        execute_plan(job.cluster, plan, job.lock, job.progress)
        job.wait_for_rollout(goal, record)
    _remove_canary_split(job)
    _remove_kserve_canary_service(job)
    if keeping is not goal:
        rest = job.plan_changes(goal, before, keep=keep)
        execute_plan(job.cluster, rest, job.lock, job.progress)
    prune_planned_objects(job.cluster, plan, job.lock, job.progress)
    return job.settle_release(record, before, records)


def abort_canary(job: Session) -> ReleaseRecord:
    """Remove the canary and route all traffic back to the live release."""
    record, before, _ = canary_trial.require_canary_trial(job)
    _remove_kserve_canary(job, before, record)
    return job.releases.mark_state(record, "aborted")


def _require_kserve_canary_split(job: Session, before: ReleaseRecord, method: Method) -> dict[str, Any] | None:
    """Check that the traffic can be split; returns KServe's own HTTPRoute of the app, or None if Knative splits it.

    Raises:
        DeployError: nothing can split the traffic; nothing was written.
    """
    if method == "traffic":
        status = (_find_canary_inference_service(job) or {}).get("status", {})
        if not status.get("components", {}).get("predictor", {}).get("latestRolledoutRevision"):
            raise DeployError(
                f"Release {before.number} does not have all traffic yet, so Knative cannot split it; "
                "nothing was changed.",
                "Wait until `mlapp status` shows 100 %, and try again.",
            )
        return None
    try:
        route = job.cluster.get_object(ROUTE, job.names.base)
    except ApiError as error:
        if error.code != 404:
            raise
        route = None
    if route is None:
        raise DeployError(
            "A canary in Standard mode needs the Gateway API, and KServe has created no HTTPRoute for "
            f"{job.names.base}, so nothing can split the traffic. Nothing was changed.",
            "Ask KServe's operator to enable the Gateway API (ingress.enableGatewayApi), use `mode: knative`, or "
            "deploy without "
            "--canary.",
        )
    return route


def _has_kserve_weights(job: Session) -> bool:
    """Whether KServe's own route already splits the traffic."""
    route = job.cluster.get_object(ROUTE, job.names.base) or {"spec": {}}
    return any(len(rule.get("backendRefs") or []) > 1 for rule in route["spec"].get("rules") or [])


def _wait_until_route_accepted(job: Session, name: str) -> None:
    """Wait for a Gateway to accept our route.

    Raises:
        DeployError: the route is refused; includes the Gateway's message.
    """
    end = time.monotonic() + ACCEPTED_WITHIN
    while True:
        route = job.cluster.get_object(ROUTE, name) or {}
        found = [
            condition
            for parent in route.get("status", {}).get("parents") or []
            for condition in parent.get("conditions") or []
            if condition.get("type") == "Accepted"
        ]
        if any(condition.get("status") == "True" for condition in found):
            return
        if found and found[0].get("status") == "False":
            said = f"{found[0].get('reason')}: {found[0].get('message')}"
            raise DeployError(f"The Gateway does not accept HTTPRoute/{name}: {said}", "Ask the Gateway's operator.")
        if time.monotonic() > end:
            job.progress(f"no Gateway has reported yet whether it accepts HTTPRoute/{name} (ParentStatusNotAvailable)")
            return
        time.sleep(1)


def _remove_kserve_canary(job: Session, before: ReleaseRecord | None, record: ReleaseRecord) -> None:
    """Route all traffic to the live release, then remove the canary's pods."""
    _remove_canary_split(job)
    _remove_kserve_canary_service(job)
    if before is None:
        return
    current = _find_canary_inference_service(job)
    if current is not None and "canaryTrafficPercent" in current["spec"]["predictor"]:
        _take_traffic_back(job, before, record)
    plan = job.plan_changes(before.documents, before, take_over=True)
    execute_plan(job.cluster, plan, job.lock, job.progress)
    if plan.pending:
        job.wait_for_rollout(before.documents, before, restored=True)
    prune_planned_objects(job.cluster, plan, job.lock, job.progress)


def _take_traffic_back(job: Session, before: ReleaseRecord, record: ReleaseRecord) -> None:
    """Send nothing to the newest revision, then make the live release's content the newest, still without traffic.

    Without `canaryTrafficPercent`, Knative would send everything to the newest ready revision, which is the canary.
    """
    for content in (record, before):
        staged = copy.deepcopy(content.documents)
        _select_inference_service(staged)["spec"]["predictor"]["canaryTrafficPercent"] = 0
        plan = job.plan_changes(staged, before, prune=False, take_over=True)
        execute_plan(job.cluster, plan, job.lock, job.progress)
        if content is before:
            job.wait_for_rollout(staged, before, restored=True)
            return
        end = time.monotonic() + TRAFFIC_WITHIN
        while read_newest_revision_share(_find_canary_inference_service(job) or {}, 0) and time.monotonic() < end:
            time.sleep(1)


def _remove_canary_split(job: Session) -> None:
    """Leave the traffic to KServe's own route, and wait until the Gateway has updated."""
    if job.settings.mode == "knative":
        return
    try:
        route = job.cluster.get_object(ROUTE, _name_kserve_canary_route(job))
    except ApiError as error:
        if error.code != 404:
            raise
        route = None
    if route is not None and job.cluster.delete_object(route):
        job.progress(f"HTTPRoute/{_name_kserve_canary_route(job)} removed")
        time.sleep(min(job.settings.rollout.leave, 5))


def _remove_kserve_canary_service(job: Session) -> None:
    if job.settings.mode == "knative":
        return
    found = job.cluster.get_object(INFERENCE_SERVICE, job.names.canary)
    if found is not None and job.cluster.delete_object(found):
        job.progress(f"InferenceService/{job.names.canary} removed")


def _name_kserve_canary_route(job: Session) -> str:
    return f"{job.names.base}-split"


def _find_canary_inference_service(job: Session) -> dict[str, Any] | None:
    return job.cluster.get_object(INFERENCE_SERVICE, job.names.base)


def _select_inference_service(documents: Documents) -> dict[str, Any]:
    return next(document for document in documents if document["kind"] == INFERENCE_SERVICE.kind)


def _select_awaited_objects(documents: Documents) -> list[dict[str, Any]]:
    """The documents to wait for; with `spec.canary`, only the canary's predictor, with the revision of its pods."""
    service = _select_inference_service(documents)
    if "canary" not in service["spec"]:
        return list(documents)
    trial = copy.deepcopy(service)
    trial["spec"] = {"predictor": service["spec"]["canary"][0]["predictor"]}
    return [trial]
