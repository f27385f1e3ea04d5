"""State of an app in the cluster: release, pods, traffic, autoscaler, events, and problems."""

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
from mlapp.deploy.cluster.naming import Names
from mlapp.deploy.cluster.object_kinds import AUTOSCALER, DEPLOYMENT, EVENT, POD, ROUTE
from mlapp.deploy.cluster.releases import ReleaseRecord, Releases
from mlapp.deploy.k8s import service_address
from mlapp.deploy.target import Status


def read_kubernetes_status(cluster: Cluster, recorded_releases: Releases, by_route: bool) -> Status:
    """The complete status, from five lists that are requested concurrently."""
    names = recorded_releases.names
    selector = f"{labels.APP}={names.base}"
    kinds = {"deployments": DEPLOYMENT, "pods": POD, "events": EVENT, "scalers": AUTOSCALER}
    if by_route:
        kinds["routes"] = ROUTE
    with ThreadPoolExecutor(6) as pool:
        records_future = pool.submit(recorded_releases.list_records)
        lists = pool.map(lambda kind: cluster.list_objects(kind, "" if kind is EVENT else selector), kinds.values())
        objects = dict(zip(kinds, lists, strict=True))
        records = records_future.result()
    live, canary = releases.find_live_release(records), releases.find_canary_release(records)
    assigned_url = (
        service_address.find_service_url(cluster, names, live)
        if live and service_address.is_address_assigned_by_cluster(live)
        else None
    )
    deployments = {item["metadata"]["name"]: item for item in objects["deployments"]}
    deployment = deployments.get(names.base)
    events = list_app_events(objects["events"], names)
    return Status(
        app=names.app,
        target=recorded_releases.target,
        release=live.release if live else None,
        canary=canary.release if canary else None,
        desired=sum(int(item["spec"].get("replicas", 1)) for item in deployments.values()),
        ready=sum(pods.is_pod_ready(pod) for pod in objects["pods"]),
        replicas=make_status_replicas(objects["pods"], records),
        traffic=_read_kubernetes_traffic(names, live, canary, objects["pods"], objects.get("routes", [])),
        url=assigned_url or (live.release.url if live else None),
        scaling=_describe_autoscaler(objects["scalers"][0]) if objects["scalers"] else None,
        events=events,
        problems=tuple(_find_deployment_problems(deployment, records, objects["pods"], objects["events"])),
        place=cluster.place,
    )


def _read_kubernetes_traffic(
    names: Names,
    live: ReleaseRecord | None,
    canary: ReleaseRecord | None,
    all_pods: list[dict[str, Any]],
    routes: list[dict[str, Any]],
) -> dict[int, int]:
    """The percentage of each release: from the route's weights, or from the number of ready pods."""
    if live is None:
        return {}
    if canary is None:
        return {live.number: 100}
    for route in routes:
        backends = (route["spec"].get("rules") or [{}])[0].get("backendRefs") or []
        weights = {backend["name"]: backend.get("weight", 1) for backend in backends}
        if names.canary in weights:
            share = round(100 * weights[names.canary] / max(1, sum(weights.values())))
            return {live.number: 100 - share, canary.number: share}
    ready = [pod["metadata"]["labels"].get(labels.INSTANCE) for pod in all_pods if pods.is_pod_ready(pod)]
    share = round(100 * ready.count(names.canary) / max(1, len(ready)))
    return {live.number: 100 - share, canary.number: share}


def _describe_autoscaler(scaler: dict[str, Any]) -> str:
    spec, status = scaler["spec"], scaler.get("status", {})
    goals = []
    current = {
        metric.get("resource", {}).get("name"): metric["resource"].get("current", {}).get("averageUtilization")
        for metric in status.get("currentMetrics") or []
        if metric and metric.get("type") == "Resource"
    }
    for metric in spec.get("metrics") or []:
        resource = metric.get("resource")
        if resource:
            percent = current.get(resource["name"])
            goal = resource.get("target", {}).get("averageUtilization")
            goals.append(f"{resource['name']} {'unknown' if percent is None else f'{percent} %'} of {goal} %")
    minimum, maximum, replicas = spec.get("minReplicas", 1), spec.get("maxReplicas"), status.get("currentReplicas", 0)
    return f"{minimum} to {maximum} replicas, now {replicas}; {', '.join(goals) or 'custom metrics'}"


def _find_deployment_problems(
    deployment: dict[str, Any] | None,
    records: Sequence[ReleaseRecord],
    all_pods: list[dict[str, Any]],
    events: list[dict[str, Any]],
) -> list[str]:
    problems = find_release_status_problems(records, DEPLOYMENT.kind, deployment is None)
    if deployment:
        for condition in deployment.get("status", {}).get("conditions") or []:
            if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
                problems.append(condition.get("message", "pods cannot be created"))
        if deployment["spec"].get("paused"):
            problems.append("the Deployment is paused: kubectl rollout resume")
    return list(dict.fromkeys([*problems, *find_pod_status_problems(all_pods, events)]))
