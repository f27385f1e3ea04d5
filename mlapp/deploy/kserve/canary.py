"""Start, promote and abort a canary on KServe by one of the methods of `canary_documents`."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

from mlapp.deploy.cluster import canary_trial
from mlapp.deploy.cluster.api_errors import ApiError
from mlapp.deploy.cluster.apply_plan import execute_change_plan, prune_planned_objects
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
from mlapp.deploy.kserve.inference_service import render_kserve_release
from mlapp.deploy.kserve.installed_version import lacks_spec_canary
from mlapp.deploy.kserve.readiness import read_newest_revision_share
from mlapp.deploy.kserve.render_context import KServeContext
from mlapp.deploy.kserve.settings import KServeSettings
from mlapp.deploy.target import DeployError, Shipment

Session = DeploySession[KServeSettings]
Documents = Sequence[dict[str, Any]]

ACCEPT_TIMEOUT = 10.0
TRAFFIC_TIMEOUT = 60.0


def start_kserve_canary(session: Session, shipment: Shipment, percent: int, take_over: bool) -> ReleaseRecord:
    """Start `shipment` beside the live release, with `percent` of the traffic.

    Raises:
        UnreachableError: the server became unreachable; the canary stays as it is.
        DeployError: nothing is live, nothing can split traffic, or the canary did not become ready and was removed.
    """
    live, records = canary_trial.require_live_for_canary(session)
    context = KServeContext(shipment, session.settings, session.serve)
    method = choose_canary_method(context)
    if method == "spec" and lacks_spec_canary(session.cluster):
        method = "second"
    route = _require_kserve_canary_split(session, live, method)
    live_service = _select_inference_service(live.documents)
    documents = render_kserve_canary_workload(context, percent, method, live_service)
    try:
        plan = session.plan_changes(documents, live, prune=False, take_over=take_over)
    except ApiError as error:
        if method != "spec" or "canary" not in error.message:
            raise
        method = "second"  # KServe before 0.20 has no `spec.canary`
        documents = render_kserve_canary_workload(context, percent, method)
        plan = session.plan_changes(documents, live, prune=False, take_over=take_over)
    if method == "second":
        refuse_long_host_name(session.cluster, KSERVE, "kserve", name_canary_service(context))
    traffic: list[dict[str, Any]] = []
    if route is not None:
        traffic = apply_canary_patches(context, [make_canary_route(context, percent, route["spec"])])
        session.plan_changes(traffic, live, prune=False, take_over=take_over)  # a refusal must come before any write
    documents_after_promotion = render_kserve_release(shipment, session.settings, session.serve)
    record = canary_trial.record_canary_trial(
        session, shipment, documents_after_promotion, records, percent, live.release.url
    )
    session.progress(f"release {record.number} as a canary: {plan.summary}")
    with canary_trial.undo_failed_canary_start(
        session, record, live, lambda: _remove_kserve_canary(session, live, record)
    ):
        execute_change_plan(session.cluster, plan, session.lock, session.progress)
        session.wait_for_rollout(_select_documents_to_await(documents), record)
        if traffic and not _has_kserve_weights(session):
            traffic_plan = session.plan_changes(traffic, live, prune=False, take_over=take_over)
            execute_change_plan(session.cluster, traffic_plan, session.lock, session.progress)
            _wait_until_route_accepted(session, traffic[0]["metadata"]["name"])
    return session.releases.mark_state(record, "canary")


def promote_kserve_canary(session: Session) -> ReleaseRecord:
    """Make the canary the live release: roll the live pods to it, move the traffic, remove the canary.

    In Knative mode, its revision gets all traffic and no pod is started.

    Raises:
        DeployError: there is no canary, or its release does not become ready; the previous release stays live.
    """
    record, live, records = canary_trial.require_canary_trial(session)
    final_documents = record.documents
    transition_documents = final_documents
    current = _find_canary_inference_service(session)
    if current is not None and (canaries := current["spec"].get("canary")):
        transition_documents = copy.deepcopy(final_documents)
        add_canary(_select_inference_service(transition_documents), canaries)  # it serves until the live pods are ready
    kept_keys = [("HTTPRoute", _name_kserve_canary_route(session)), ("InferenceService", session.names.canary)]
    plan = session.plan_changes(transition_documents, live, keep=kept_keys)
    with canary_trial.undo_failed_canary_promotion(session, record, live, lambda: _remove_canary_split(session)):
        execute_change_plan(session.cluster, plan, session.lock, session.progress)
        session.wait_for_rollout(final_documents, record)
    _remove_canary_split(session)
    _remove_kserve_canary_service(session)
    if transition_documents is not final_documents:
        final_plan = session.plan_changes(final_documents, live, keep=kept_keys)
        execute_change_plan(session.cluster, final_plan, session.lock, session.progress)
    prune_planned_objects(session.cluster, plan, session.lock, session.progress)
    return session.settle_release(record, live, records)


def abort_kserve_canary(session: Session) -> ReleaseRecord:
    """Remove the canary and route all traffic back to the live release."""
    record, live, _ = canary_trial.require_canary_trial(session)
    _remove_kserve_canary(session, live, record)
    return session.releases.mark_state(record, "aborted")


def _require_kserve_canary_split(session: Session, live: ReleaseRecord, method: Method) -> dict[str, Any] | None:
    """Check that the traffic can be split; returns KServe's own HTTPRoute of the app, or None if Knative splits it.

    Raises:
        DeployError: nothing can split the traffic; nothing was written.
    """
    if method == "traffic":
        status = (_find_canary_inference_service(session) or {}).get("status", {})
        if not status.get("components", {}).get("predictor", {}).get("latestRolledoutRevision"):
            raise DeployError(
                f"Release {live.number} does not have all traffic yet, so Knative cannot split it; "
                "nothing was changed.",
                "Wait until `mlapp status` shows 100 %, and try again.",
            )
        return None
    try:
        route = session.cluster.get_object(ROUTE, session.names.base)
    except ApiError as error:
        if error.code != 404:
            raise
        route = None
    if route is None:
        raise DeployError(
            "A canary in Standard mode needs the Gateway API, and KServe has created no HTTPRoute for "
            f"{session.names.base}, so nothing can split the traffic. Nothing was changed.",
            "Ask KServe's operator to enable the Gateway API (ingress.enableGatewayApi), use `mode: knative`, or "
            "deploy without "
            "--canary.",
        )
    return route


def _has_kserve_weights(session: Session) -> bool:
    """Whether KServe's own route already splits the traffic."""
    route = session.cluster.get_object(ROUTE, session.names.base) or {"spec": {}}
    return any(len(rule.get("backendRefs") or []) > 1 for rule in route["spec"].get("rules") or [])


def _wait_until_route_accepted(session: Session, name: str) -> None:
    """Wait for a Gateway to accept the route that splits the traffic.

    Raises:
        DeployError: the route is refused; includes the Gateway's message.
    """
    end = time.monotonic() + ACCEPT_TIMEOUT
    while True:
        route = session.cluster.get_object(ROUTE, name) or {}
        conditions = [
            condition
            for parent in route.get("status", {}).get("parents") or []
            for condition in parent.get("conditions") or []
            if condition.get("type") == "Accepted"
        ]
        if any(condition.get("status") == "True" for condition in conditions):
            return
        if conditions and conditions[0].get("status") == "False":
            reason = f"{conditions[0].get('reason')}: {conditions[0].get('message')}"
            raise DeployError(f"The Gateway does not accept HTTPRoute/{name}: {reason}", "Ask the Gateway's operator.")
        if time.monotonic() > end:
            session.progress(
                f"no Gateway has reported yet whether it accepts HTTPRoute/{name} (ParentStatusNotAvailable)"
            )
            return
        time.sleep(1)


def _remove_kserve_canary(session: Session, live: ReleaseRecord | None, record: ReleaseRecord) -> None:
    """Route all traffic to the live release, then remove the canary's pods."""
    _remove_canary_split(session)
    _remove_kserve_canary_service(session)
    if live is None:
        return
    current = _find_canary_inference_service(session)
    if current is not None and "canaryTrafficPercent" in current["spec"]["predictor"]:
        _return_traffic_to_live(session, live, record)
    plan = session.plan_changes(live.documents, live, take_over=True)
    execute_change_plan(session.cluster, plan, session.lock, session.progress)
    if plan.pending:
        session.wait_for_rollout(live.documents, live, restored=True)
    prune_planned_objects(session.cluster, plan, session.lock, session.progress)


def _return_traffic_to_live(session: Session, live: ReleaseRecord, record: ReleaseRecord) -> None:
    """Send nothing to the newest revision, then make the live release's content the newest, still without traffic.

    Without `canaryTrafficPercent`, Knative would send everything to the newest ready revision, which is the canary.
    """
    for source in (record, live):
        documents = copy.deepcopy(source.documents)
        _select_inference_service(documents)["spec"]["predictor"]["canaryTrafficPercent"] = 0
        plan = session.plan_changes(documents, live, prune=False, take_over=True)
        execute_change_plan(session.cluster, plan, session.lock, session.progress)
        if source is live:
            session.wait_for_rollout(documents, live, restored=True)
            return
        end = time.monotonic() + TRAFFIC_TIMEOUT
        while read_newest_revision_share(_find_canary_inference_service(session) or {}, 0) and time.monotonic() < end:
            time.sleep(1)


def _remove_canary_split(session: Session) -> None:
    """Leave the traffic to KServe's own route, and wait until the Gateway has updated."""
    if session.settings.mode == "knative":
        return
    try:
        route = session.cluster.get_object(ROUTE, _name_kserve_canary_route(session))
    except ApiError as error:
        if error.code != 404:
            raise
        route = None
    if route is not None and session.cluster.delete_object(route):
        session.progress(f"HTTPRoute/{_name_kserve_canary_route(session)} removed")
        time.sleep(min(session.settings.rollout.leave, 5))


def _remove_kserve_canary_service(session: Session) -> None:
    if session.settings.mode == "knative":
        return
    service = session.cluster.get_object(INFERENCE_SERVICE, session.names.canary)
    if service is not None and session.cluster.delete_object(service):
        session.progress(f"InferenceService/{session.names.canary} removed")


def _name_kserve_canary_route(session: Session) -> str:
    return f"{session.names.base}-split"


def _find_canary_inference_service(session: Session) -> dict[str, Any] | None:
    return session.cluster.get_object(INFERENCE_SERVICE, session.names.base)


def _select_inference_service(documents: Documents) -> dict[str, Any]:
    return next(document for document in documents if document["kind"] == INFERENCE_SERVICE.kind)


def _select_documents_to_await(documents: Documents) -> list[dict[str, Any]]:
    """The documents to wait for. With `spec.canary`, only the canary's predictor, with the revision of its pods."""
    service = _select_inference_service(documents)
    if "canary" not in service["spec"]:
        return list(documents)
    canary_service = copy.deepcopy(service)
    canary_service["spec"] = {"predictor": service["spec"]["canary"][0]["predictor"]}
    return [canary_service]
