"""Pods, events and problems of an app, as `mlapp status` shows them for every target in a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from mlapp.deploy.cluster import labels, pods, releases
from mlapp.deploy.cluster.naming import Names
from mlapp.deploy.cluster.releases import ReleaseRecord
from mlapp.deploy.target import Event, Replica

MAX_EVENTS = 8
LONG_AGO = datetime.fromtimestamp(0, timezone.utc)


def find_app_status_revision(documents: Iterable[dict[str, Any]]) -> str | None:
    """The revision label of the pods, from the template of a Deployment or Knative Service, or from a predictor."""
    for document in documents:
        spec = document.get("spec", {})
        template = (spec.get("template") or {}).get("metadata") or spec.get("predictor") or {}
        if revision := (template.get("labels") or {}).get(labels.REVISION):
            return str(revision)
    return None


def make_status_replicas(all_pods: Iterable[dict[str, Any]], records: Sequence[ReleaseRecord]) -> tuple[Replica, ...]:
    """The pods by name, each with the release that its revision belongs to."""
    ordered = sorted(all_pods, key=lambda pod: pod["metadata"]["name"])
    return tuple(_make_status_replica(pod, records) for pod in ordered)


def _make_status_replica(pod: dict[str, Any], records: Sequence[ReleaseRecord]) -> Replica:
    instance = (pod["metadata"].get("labels") or {}).get(labels.INSTANCE, "")
    canary = releases.find_canary_release(records)
    if canary and instance.endswith("-canary"):
        number = canary.number
    else:
        revision = pods.read_pod_revision(pod)
        number = next(
            (record.number for record in reversed(records) if find_app_status_revision(record.documents) == revision), 0
        )
    return Replica(
        name=pod["metadata"]["name"],
        ready=pods.is_pod_ready(pod),
        state=pods.describe_pod_state(pod),
        release=number or None,
        restarts=pods.count_pod_restarts(pod),
        node=pod["spec"].get("nodeName"),
        started=pods.read_pod_start_time(pod),
    )


def find_release_status_problems(records: Sequence[ReleaseRecord], workload: str, is_gone: bool) -> list[str]:
    """Problems of the recorded releases.

    Args:
        workload: the kind of the object that runs the live release.
        is_gone: whether that object does not exist.
    """
    problems = []
    live = releases.find_live_release(records)
    if interrupted := releases.find_interrupted_release(records):
        problems.append(f"release {interrupted.number} was interrupted before it was ready: deploy again, or roll back")
    if live and is_gone:
        problems.append(f"release {live.number} is recorded as live, but its {workload} is gone: deploy again")
    if live is None and records and records[-1].state == "failed":
        problems.append(f"release {records[-1].number} failed: {records[-1].release.note}")
    return problems


def find_pod_status_problems(all_pods: Iterable[dict[str, Any]], events: Sequence[dict[str, Any]]) -> list[str]:
    """Reasons why pods are not ready; `events` are those of the namespace."""
    problems = []
    for pod in all_pods:
        if not pods.is_pod_ready(pod) and not pod["metadata"].get("deletionTimestamp"):
            pod_events = [
                event for event in events if (event.get("involvedObject") or {}).get("name") == pod["metadata"]["name"]
            ]
            if trouble := pods.find_pod_trouble(pod, pod_events):
                problems.append(trouble.text)
    return problems


def list_app_events(all_events: list[dict[str, Any]], names: Names) -> tuple[Event, ...]:
    """The latest events of the app's objects and of objects that controllers created for them, oldest first."""
    app_events = []
    for event in all_events:
        subject = event.get("involvedObject") or {}
        name = subject.get("name", "")
        if names.is_own_name(name):
            text = event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp")
            app_events.append(
                Event(
                    time=datetime.fromisoformat(text.replace("Z", "+00:00")) if text else LONG_AGO,
                    kind="warning" if event.get("type") == "Warning" else "normal",
                    subject=f"{subject.get('kind')}/{name}",
                    reason=event.get("reason") or "",
                    message=event.get("message") or "",
                    count=event.get("count") or (event.get("series") or {}).get("count") or 1,
                )
            )
    return tuple(sorted(app_events, key=lambda event: event.time)[-MAX_EVENTS:])
