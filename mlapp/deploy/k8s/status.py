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
    own = f"{labels.APP}={names.base}"
    kinds = {"deployments": DEPLOYMENT, "pods": POD, "events": EVENT, "scalers": AUTOSCALER}
    if by_route:
        kinds["routes"] = ROUTE
    with ThreadPoolExecutor(6) as pool:
        recorded = pool.submit(recorded_releases.list_records)
        lists = pool.map(lambda kind: cluster.list_objects(kind, "" if kind is EVENT else own), kinds.values())
        found = dict(zip(kinds, lists, strict=True))
        records = recorded.result()
    live, trial = releases.find_live_release(records), releases.find_canary_release(records)
    given = (
        service_address.find_service_url(cluster, names, live)
        if live and service_address.is_address_given_by_cluster(live)
        else None
    )
    deployments = {item["metadata"]["name"]: item for item in found["deployments"]}
    main = deployments.get(names.base)
    events = list_app_events(found["events"], names)
    return Status(
        app=names.app,
        target=recorded_releases.target,
        release=live.release if live else None,
        canary=trial.release if trial else None,
        desired=sum(int(item["spec"].get("replicas", 1)) for item in deployments.values()),
        ready=sum(pods.is_pod_ready(pod) for pod in found["pods"]),
        replicas=make_status_replicas(found["pods"], records),
        traffic=_read_kubernetes_traffic(names, live, trial, found["pods"], found.get("routes", [])),
        url=given or (live.release.url if live else None),
        scaling=_describe_autoscaler(found["scalers"][0]) if found["scalers"] else None,
        events=events,
        problems=tuple(_find_deployment_problems(main, records, found["pods"], found["events"])),
        place=cluster.place,
    )


def _read_kubernetes_traffic(
    names: Names,
    live: ReleaseRecord | None,
    trial: ReleaseRecord | None,
    all_pods: list[dict[str, Any]],
    routes: list[dict[str, Any]],
) -> dict[int, int]:
    """The percentage of each release: from the route's weights, or from the number of ready pods."""
    if live is None:
        return {}
    if trial is None:
        return {live.number: 100}
    for route in routes:
        backends = (route["spec"].get("rules") or [{}])[0].get("backendRefs") or []
        weights = {backend["name"]: backend.get("weight", 1) for backend in backends}
        if names.canary in weights:
            share = round(100 * weights[names.canary] / max(1, sum(weights.values())))
            return {live.number: 100 - share, trial.number: share}
    ready = [pod["metadata"]["labels"].get(labels.INSTANCE) for pod in all_pods if pods.is_pod_ready(pod)]
    share = round(100 * ready.count(names.canary) / max(1, len(ready)))
    return {live.number: 100 - share, trial.number: share}


def _describe_autoscaler(scaler: dict[str, Any]) -> str:
    spec, now = scaler["spec"], scaler.get("status", {})
    goals = []
    current = {
        metric.get("resource", {}).get("name"): metric["resource"].get("current", {}).get("averageUtilization")
        for metric in now.get("currentMetrics") or []
        if metric and metric.get("type") == "Resource"
    }
    for metric in spec.get("metrics") or []:
        resource = metric.get("resource")
        if resource:
            seen = current.get(resource["name"])
            goal = resource.get("target", {}).get("averageUtilization")
            goals.append(f"{resource['name']} {'unknown' if seen is None else f'{seen} %'} of {goal} %")
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas")
    return f"{least} to {most} replicas, now {now.get('currentReplicas', 0)}; {', '.join(goals) or 'custom metrics'}"


def _find_deployment_problems(
    deployment: dict[str, Any] | None,
    records: Sequence[ReleaseRecord],
    all_pods: list[dict[str, Any]],
    events: list[dict[str, Any]],
) -> list[str]:
    found = find_release_status_problems(records, DEPLOYMENT.kind, deployment is None)
    if deployment:
        for condition in deployment.get("status", {}).get("conditions") or []:
            if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
                found.append(condition.get("message", "pods cannot be created"))
        if deployment["spec"].get("paused"):
            found.append("the Deployment is paused: kubectl rollout resume")
    return list(dict.fromkeys([*found, *find_pod_status_problems(all_pods, events)]))
