"""State of an app on KServe: release, pods, conditions, traffic, events, and problems."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlapp.deploy.cluster import labels, pods, releases
from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.app_status import (
    find_pod_status_problems,
    find_release_status_problems,
    list_app_events,
    make_status_replicas,
)
from mlapp.deploy.cluster.object_kinds import EVENT, INFERENCE_SERVICE, POD, ROUTE
from mlapp.deploy.cluster.releases import ReleaseRecord, Releases
from mlapp.deploy.kserve.inference_service import INTERNAL, VISIBILITY_LABEL
from mlapp.deploy.kserve.readiness import explain_missing_address, find_model_failure, find_service_conditions
from mlapp.deploy.target import Status


def read_kserve_status(cluster: Cluster, recorded_releases: Releases, by_route: bool) -> Status:
    """The complete status, from five lists that are requested concurrently; `by_route` if a route can split traffic."""
    names = recorded_releases.names
    selector = f"{labels.APP}={names.base}"
    kinds = (INFERENCE_SERVICE, POD, EVENT, *([ROUTE] if by_route else []))
    with ThreadPoolExecutor(5) as pool:
        records_future = pool.submit(recorded_releases.list_records)
        lists = pool.map(lambda kind: cluster.list_objects(kind, "" if kind is EVENT else selector), kinds)
        services, all_pods, events, *routes = lists
        records = records_future.result()
    live, canary = releases.find_live_release(records), releases.find_canary_release(records)
    service = next((item for item in services if item["metadata"]["name"] == names.base), None)
    predictor = (service or {"spec": {"predictor": {}}})["spec"]["predictor"]
    return Status(
        app=names.app,
        target=recorded_releases.target,
        release=live.release if live else None,
        canary=canary.release if canary else None,
        desired=sum(int(item["spec"]["predictor"].get("minReplicas", 1)) for item in services),
        ready=sum(pods.is_pod_ready(pod) for pod in all_pods),
        replicas=make_status_replicas(all_pods, records),
        traffic=_read_kserve_traffic(live, canary, service, [route for items in routes for route in items], names.base),
        url=find_service_url(service or {}) or (live.release.url if live else None),
        scaling=_describe_kserve_scaling(predictor),
        events=list_app_events(events, names),
        problems=tuple(_find_kserve_problems(services, records, all_pods, events)),
        place=cluster.place,
    )


def find_service_url(service: dict[str, Any]) -> str | None:
    """The URL that KServe reports, which is internal to the cluster if the service has no route."""
    status = service.get("status", {})
    internal_url = (status.get("address") or {}).get("url")
    is_internal = (service.get("metadata", {}).get("labels") or {}).get(VISIBILITY_LABEL) == INTERNAL
    url = internal_url if is_internal and internal_url else status.get("url")
    return str(url) if url else None


def _read_kserve_traffic(
    live: ReleaseRecord | None,
    canary: ReleaseRecord | None,
    service: dict[str, Any] | None,
    routes: Sequence[dict[str, Any]],
    base: str,
) -> dict[int, int]:
    """The percentage of each release: from Knative's traffic, or from the weights of a route."""
    if live is None:
        return {}
    if canary is None:
        return {live.number: 100}
    share = 0
    entries = (service or {}).get("status", {}).get("components", {}).get("predictor", {}).get("traffic") or []
    if len(entries) > 1:
        share = sum(int(entry.get("percent") or 0) for entry in entries if entry.get("latestRevision"))
    for route in routes:
        for rule in route["spec"].get("rules") or []:
            weights = {backend["name"]: backend.get("weight", 1) for backend in rule.get("backendRefs") or []}
            if (name := f"{base}-canary-predictor") in weights:
                share = round(100 * weights[name] / max(1, sum(weights.values())))
    return {live.number: 100 - share, canary.number: share}


def _describe_kserve_scaling(predictor: dict[str, Any]) -> str | None:
    minimum, maximum = predictor.get("minReplicas", 1), predictor.get("maxReplicas", 0)
    return f"{minimum} to {maximum} replicas" if maximum > minimum else None


def _find_kserve_problems(
    services: Sequence[dict[str, Any]],
    records: Sequence[ReleaseRecord],
    all_pods: list[dict[str, Any]],
    events: list[dict[str, Any]],
) -> list[str]:
    problems = find_release_status_problems(records, INFERENCE_SERVICE.kind, not services)
    for item in services:
        for kind, condition in find_service_conditions(item).items():
            if kind == "IngressReady" and condition.get("status") != "True":
                problems.append(f"{item['metadata']['name']} has no address: {explain_missing_address(condition)}")
            elif kind == "PredictorReady" and condition.get("status") == "False":
                reason = condition.get("message") or condition.get("reason") or "no reason given"
                problems.append(f"{item['metadata']['name']}: PredictorReady is False: {reason}")
        if failure := find_model_failure(item):
            problems.append(f"{item['metadata']['name']}: {failure.get('reason')}: {failure.get('message')}")
    return list(dict.fromkeys([*problems, *find_pod_status_problems(all_pods, events)]))
