"""A canary on KServe, by one of three methods, depending on the mode, KServe's version and the cluster.

| mode                 | the model is in  | how the traffic is split                                               |
|----------------------|------------------|------------------------------------------------------------------------|
| Knative              | image or bucket  | `canaryTrafficPercent`: Knative splits between two revisions           |
| Standard             | image            | a second InferenceService, and an HTTPRoute of ours with weights       |
| Standard, from 0.20  | bucket           | `spec.canary`, and an HTTPRoute of ours where KServe's has no weights  |

In Standard mode, KServe accepts `canaryTrafficPercent` but ignores it. KServe 0.20.0 runs the pods of `spec.canary` but
routes nothing to them. Without the Gateway API nothing can split the traffic; this is an error before any write.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from mlapp.deploy.cluster import canary_trial
from mlapp.deploy.cluster.api_errors import ApiError
from mlapp.deploy.cluster.apply_plan import execute_plan, prune_objects
from mlapp.deploy.cluster.deploy_session import DeploySession
from mlapp.deploy.cluster.object_kinds import INFERENCE_SERVICE, ROUTE
from mlapp.deploy.cluster.patches import apply_patches
from mlapp.deploy.cluster.releases import ReleaseRecord
from mlapp.deploy.kserve import inference_service as objects
from mlapp.deploy.kserve.inference_service import KServeContext
from mlapp.deploy.kserve.readiness import read_newest_share
from mlapp.deploy.kserve.settings import KServeSettings
from mlapp.deploy.target import DeployError, Shipment

Session = DeploySession[KServeSettings]
Documents = Sequence[dict[str, Any]]
Method = Literal["traffic", "second", "spec"]

GATEWAY: dict[str, Any] = {
    "group": "gateway.networking.k8s.io",
    "kind": "Gateway",
    "name": "kserve-ingress-gateway",
    "namespace": "kserve",
}
"""KServe's default Gateway, for a dry run; a deploy uses the Gateway of KServe's own route for the app."""
DOMAIN = "example.com"
ACCEPTED_WITHIN = 10.0
TRAFFIC_WITHIN = 60.0
CANARY = "canary"


def choose_method(context: KServeContext) -> Method:
    """The canary method for these settings on the newest KServe."""
    if context.is_knative:
        return "traffic"
    return "spec" if context.storage_uri is not None else "second"


def render_canary(context: KServeContext, percent: int, live: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The documents of a canary, as far as the settings determine them.

    Args:
        live: the live InferenceService, to which `spec.canary` is added; if None, rendered from the settings.
    """
    method = choose_method(context)
    documents = render_workload(context, percent, method, live)
    if method != "traffic":
        host = f"{context.names.base}-{context.settings.namespace_name or 'default'}.{DOMAIN}"
        documents.append(objects.make_route(context, percent, [GATEWAY], [host], _canary_service(context)))
    return documents


def render_workload(
    context: KServeContext, percent: int, method: Method, live: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The workload documents of the canary; with the method `traffic`, they also split the traffic."""
    trial = replace(context, track="canary")
    documents = objects.make_model_objects(context)
    if method == "traffic":
        service = objects.make_inference_service(context)
        service["spec"]["predictor"]["canaryTrafficPercent"] = percent
    elif method == "second":
        least = max(1, math.ceil(context.settings.min_replicas * percent / 100))
        service = objects.make_inference_service(trial, min_replicas=least)
    else:
        service = copy.deepcopy(live) if live is not None else objects.make_inference_service(context)
        predictor = objects.make_predictor(trial)
        predictor["model"]["name"] = objects.CONTAINER  # required here, forbidden in the stable one
        service["spec"]["canary"] = [{"trafficPercent": percent, "predictor": {"name": CANARY, **predictor}}]
        return [*_apply_user_patches(context, documents), service]
    return _apply_user_patches(context, [*documents, service])


def start_canary(job: Session, shipment: Shipment, percent: int, take_over: bool) -> ReleaseRecord:
    """Start `shipment` beside the live release, with `percent` of the traffic.

    Raises:
        UnreachableError: the server became unreachable; the canary stays as it is.
        DeployError: nothing is live, nothing can split traffic, or the canary did not become ready and was removed.
    """
    before, records = canary_trial.require_live(job)
    context = KServeContext(shipment, job.settings, job.serve)
    method = choose_method(context)
    route = _require_split(job, before, method)
    live = _select_service(before.documents)
    documents = render_workload(context, percent, method, live)
    try:
        plan = job.plan_changes(documents, before, prune=False, take_over=take_over)
    except ApiError as error:
        if method != "spec" or "canary" not in error.message:
            raise
        method = "second"  # KServe before 0.20 has no `spec.canary`
        documents = render_workload(context, percent, method)
        plan = job.plan_changes(documents, before, prune=False, take_over=take_over)
    traffic: list[dict[str, Any]] = []
    if route is not None:
        traffic = _apply_user_patches(context, [_copy_route(context, percent, route)])
        job.plan_changes(traffic, before, prune=False, take_over=take_over)  # a refusal must come before any write
    goal = objects.render_release(shipment, job.settings, job.serve)
    record = canary_trial.create_record(job, shipment, goal, records, percent, before.release.url)
    job.progress(f"release {record.number} as a canary: {plan.summary}")
    with canary_trial.undo_failed_start(job, record, before, lambda: _remove_canary(job, before, record)):
        execute_plan(job.cluster, plan, job.lock, job.progress)
        job.wait_for_rollout(_select_awaited_objects(documents), record)
        if traffic and not _has_weights(job):
            shift = job.plan_changes(traffic, before, prune=False, take_over=take_over)
            execute_plan(job.cluster, shift, job.lock, job.progress)
            _wait_until_accepted(job, traffic[0]["metadata"]["name"])
    return job.releases.mark_state(record, "canary")


def promote_canary(job: Session) -> ReleaseRecord:
    """Make the canary the live release: roll the live pods to it, move the traffic, remove the canary.

    In Knative mode, its revision gets all traffic and no pod is started.

    Raises:
        DeployError: there is no canary, or its release does not become ready; the previous release stays live.
    """
    record, before, records = canary_trial.require_canary(job)
    goal = record.documents
    keeping = goal
    current = _find_service(job)
    if current is not None and (trials := current["spec"].get("canary")):
        keeping = copy.deepcopy(goal)
        _select_service(keeping)["spec"]["canary"] = trials  # it serves until the live pods are ready
    keep = [("HTTPRoute", _split_name(job)), ("InferenceService", job.names.canary)]
    plan = job.plan_changes(keeping, before, keep=keep)
    with canary_trial.undo_failed_promotion(job, record, before, lambda: _remove_split(job)):
        execute_plan(job.cluster, plan, job.lock, job.progress)
        job.wait_for_rollout(goal, record)
    _remove_split(job)
    _remove_second_service(job)
    if keeping is not goal:
        rest = job.plan_changes(goal, before, keep=keep)
        execute_plan(job.cluster, rest, job.lock, job.progress)
    prune_objects(job.cluster, plan, job.lock, job.progress)
    return job.settle_release(record, before, records)


def abort_canary(job: Session) -> ReleaseRecord:
    """Remove the canary and route all traffic back to the live release."""
    record, before, _ = canary_trial.require_canary(job)
    _remove_canary(job, before, record)
    return job.releases.mark_state(record, "aborted")


def _require_split(job: Session, before: ReleaseRecord, method: Method) -> dict[str, Any] | None:
    """Check that the traffic can be split; returns KServe's own HTTPRoute of the app, or None if Knative splits it.

    Raises:
        DeployError: nothing can split the traffic; nothing was written.
    """
    if method == "traffic":
        status = (_find_service(job) or {}).get("status", {})
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
            "A canary in Standard mode needs the Gateway API, and KServe has made no HTTPRoute for "
            f"{job.names.base}, so nothing can split the traffic. Nothing was changed.",
            "Have KServe's Gateway API enabled (ingress.enableGatewayApi), use `mode: knative`, or deploy without "
            "--canary.",
        )
    return route


def _copy_route(context: KServeContext, percent: int, route: dict[str, Any]) -> dict[str, Any]:
    """Our route, with the hosts and Gateways of KServe's route."""
    spec = route["spec"]
    return objects.make_route(
        context, percent, spec.get("parentRefs") or [GATEWAY], spec.get("hostnames") or [], _canary_service(context)
    )


def _canary_service(context: KServeContext) -> str:
    """The Service of the canary's pods: KServe uses the same name for a second service and for `spec.canary`."""
    return f"{context.names.canary}-predictor"


def _has_weights(job: Session) -> bool:
    """Whether KServe's own route already splits the traffic."""
    route = job.cluster.get_object(ROUTE, job.names.base) or {"spec": {}}
    return any(len(rule.get("backendRefs") or []) > 1 for rule in route["spec"].get("rules") or [])


def _wait_until_accepted(job: Session, name: str) -> None:
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


def _remove_canary(job: Session, before: ReleaseRecord | None, record: ReleaseRecord) -> None:
    """Route all traffic to the live release, then remove the canary's pods."""
    _remove_split(job)
    _remove_second_service(job)
    if before is None:
        return
    current = _find_service(job)
    if current is not None and "canaryTrafficPercent" in current["spec"]["predictor"]:
        _take_traffic_back(job, before, record)
    plan = job.plan_changes(before.documents, before, take_over=True)
    execute_plan(job.cluster, plan, job.lock, job.progress)
    if plan.pending:
        job.wait_for_rollout(before.documents, before, restored=True)
    prune_objects(job.cluster, plan, job.lock, job.progress)


def _take_traffic_back(job: Session, before: ReleaseRecord, record: ReleaseRecord) -> None:
    """Send nothing to the newest revision, then make the live release's content the newest, still without traffic.

    Without `canaryTrafficPercent`, Knative would send everything to the newest ready revision, which is the canary.
    """
    for content in (record, before):
        staged = copy.deepcopy(content.documents)
        _select_service(staged)["spec"]["predictor"]["canaryTrafficPercent"] = 0
        plan = job.plan_changes(staged, before, prune=False, take_over=True)
        execute_plan(job.cluster, plan, job.lock, job.progress)
        if content is before:
            job.wait_for_rollout(staged, before, restored=True)
            return
        end = time.monotonic() + TRAFFIC_WITHIN
        while read_newest_share(_find_service(job) or {}, 0) and time.monotonic() < end:
            time.sleep(1)


def _remove_split(job: Session) -> None:
    """Leave the traffic to KServe's own route, and wait until the Gateway has updated."""
    if job.settings.mode == "knative":
        return
    try:
        route = job.cluster.get_object(ROUTE, _split_name(job))
    except ApiError as error:
        if error.code != 404:
            raise
        route = None
    if route is not None and job.cluster.delete_object(route):
        job.progress(f"HTTPRoute/{_split_name(job)} removed")
        time.sleep(min(job.settings.rollout.leave, 5))


def _remove_second_service(job: Session) -> None:
    if job.settings.mode == "knative":
        return
    found = job.cluster.get_object(INFERENCE_SERVICE, job.names.canary)
    if found is not None and job.cluster.delete_object(found):
        job.progress(f"InferenceService/{job.names.canary} removed")


def _split_name(job: Session) -> str:
    return f"{job.names.base}-split"


def _find_service(job: Session) -> dict[str, Any] | None:
    return job.cluster.get_object(INFERENCE_SERVICE, job.names.base)


def _select_service(documents: Documents) -> dict[str, Any]:
    return next(document for document in documents if document["kind"] == INFERENCE_SERVICE.kind)


def _select_awaited_objects(documents: Documents) -> list[dict[str, Any]]:
    """The documents to wait for; with `spec.canary`, only the canary's predictor, with the revision of its pods."""
    service = _select_service(documents)
    if "canary" not in service["spec"]:
        return list(documents)
    trial = copy.deepcopy(service)
    trial["spec"] = {"predictor": service["spec"]["canary"][0]["predictor"]}
    return [trial]


def _apply_user_patches(context: KServeContext, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    patches = objects.select_patches(context.settings.patches, context.names, documents)
    return apply_patches(documents, patches, objects.SECTION)
