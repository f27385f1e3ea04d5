"""Describes the state of a pod and its problem."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlapp.deploy.cluster import labels

FINAL_IMAGE_REASONS = frozenset({"InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
IMAGE_REASONS = FINAL_IMAGE_REASONS | {"ImagePullBackOff", "ErrImagePull"}
CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
START_FAILURES = frozenset({"StartError", "ContainerCannotRun"})
"""Termination reasons of a container that never ran its command. It has no log, only the runtime's message."""
PULL_PATIENCE = 60.0
"""Seconds to wait for a registry that is busy or unreachable."""
SECRET_PATIENCE = 30.0
"""Seconds to wait for a Secret that an operator creates."""
MIN_CRASHES = 2
"""Number of terminations after which a container counts as crashing. A single one can be transient."""


@dataclass(frozen=True)
class Trouble:
    """The reason why a pod does not serve.

    Args:
        fatal: waiting longer than `patience` seconds will not help.
        crashed: the container's last log lines have details.
    """

    pod: str
    text: str
    fatal: bool = False
    crashed: bool = False
    container: str | None = None
    patience: float = 0.0
    out_of_memory: bool = False


def is_pod_ready(pod: dict[str, Any]) -> bool:
    """Whether the pod is ready and not terminating."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in pod.get("status", {}).get("conditions") or []
    )


def count_pod_restarts(pod: dict[str, Any]) -> int:
    """The total number of container restarts."""
    return sum(status.get("restartCount", 0) for status in _list_pod_container_statuses(pod))


def describe_pod_state(pod: dict[str, Any]) -> str:
    """The state in one or two words, as in kubectl's STATUS column."""
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for status in _list_pod_container_statuses(pod):
        current = status.get("state") or {}
        waiting, terminated = current.get("waiting"), current.get("terminated")
        if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return str(waiting["reason"])
        if terminated and terminated.get("exitCode"):
            return str(terminated.get("reason") or f"exit {terminated['exitCode']}")
    phase = str(pod.get("status", {}).get("phase") or "Pending")
    if phase == "Running" and not is_pod_ready(pod):
        return "Starting"
    return phase


def read_pod_start_time(pod: dict[str, Any]) -> datetime | None:
    """The time at which the kubelet accepted the pod."""
    text = pod.get("status", {}).get("startTime")
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def read_pod_revision(pod: dict[str, Any]) -> str | None:
    """The hash of the pod's template."""
    return (pod["metadata"].get("labels") or {}).get(labels.REVISION)


def find_pod_trouble(pod: dict[str, Any], events: Iterable[dict[str, Any]] = ()) -> Trouble | None:
    """The reason why the pod does not serve, or None. `events` are the pod's events."""
    name = pod["metadata"]["name"]
    status = pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp"):
        return None
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Trouble(
                name, f"no node can take pod {name}: {condition.get('message', condition.get('reason', ''))}"
            )
    if status.get("phase") == "Failed":
        return Trouble(
            name, f"pod {name} failed: {status.get('reason', '')} {status.get('message', '')}".rstrip(), True
        )
    for container in _list_pod_container_statuses(pod):
        if trouble := _find_pod_container_trouble(name, container):
            return trouble
    if not is_pod_ready(pod) and (probe := _find_pod_probe_failure(events)):
        return Trouble(name, f"pod {name} is not ready: {probe}")
    return None


def _find_pod_container_trouble(pod: str, status: dict[str, Any]) -> Trouble | None:
    container = status.get("name", labels.CONTAINER)
    waiting = (status.get("state") or {}).get("waiting") or {}
    reason, message = waiting.get("reason"), waiting.get("message") or ""
    if reason in IMAGE_REASONS:
        patience = 0.0 if reason in FINAL_IMAGE_REASONS or _is_final_pod_message(message) else PULL_PATIENCE
        text = f"pod {pod} cannot pull its image {status.get('image', '')}: {message or reason}"
        return Trouble(pod, text, True, patience=patience)
    if reason in CONFIG_REASONS:
        return Trouble(pod, f"pod {pod} cannot start: {message or reason}", True, patience=SECRET_PATIENCE)
    terminated = (status.get("state") or {}).get("terminated") or (status.get("lastState") or {}).get("terminated")
    if terminated and (status.get("restartCount", 0) >= MIN_CRASHES or reason == "CrashLoopBackOff"):
        end_reason = terminated.get("reason") or "Error"
        text = f"exit code {terminated.get('exitCode')}"
        if end_reason in START_FAILURES:
            return Trouble(pod, f"pod {pod} cannot start ({end_reason}): {terminated.get('message') or text}", True)
        if end_reason == "OOMKilled":
            text = "it needs more than its memory limit"
        is_killed = end_reason == "OOMKilled"
        text = f"pod {pod} crashes ({end_reason}): {text}"
        return Trouble(pod, text, True, not is_killed, container, out_of_memory=is_killed)
    return None


def _is_final_pod_message(message: str) -> bool:
    final = ("not found", "manifest unknown", "denied", "unauthorized", "forbidden", "no match for platform")
    return any(word in message.lower() for word in final)


def _find_pod_probe_failure(events: Iterable[dict[str, Any]]) -> str | None:
    failures = [event.get("message", "") for event in events if event.get("reason") == "Unhealthy"]
    return failures[-1] if failures else None


def _list_pod_container_statuses(pod: dict[str, Any]) -> list[dict[str, Any]]:
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
