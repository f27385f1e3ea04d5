"""The pods of a run: their logs, and the reasons why they were killed or have not started. Flyte keeps only the latter.

flytepropeller runs the pods of a run in the namespace `<project>-<domain>`, with the run's ID as the label
`execution-id` and the task's node as `node-id` (flytepropeller/pkg/compiler/transformers/k8s/workflow.go). The reasons
of waiting pods are in `closure.reason`, in the formats of flyteplugins/go/tasks/pluginmachinery/flytek8s/pod_helper.go,
`demystifyPendingHelper`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlapp.config import Flyte

CALL_TIMEOUT = 10.0
"""Timeout of one call in seconds. It is short because the cluster is often unreachable, and nothing depends on it."""
MAX_LOG_LINES = 1000
"""Maximum number of lines of a pod's log."""
PULL_ERROR = re.compile(
    r"ImagePullBackOff|ErrImagePull|InvalidImageName|ErrImageNeverPull|Back-off pulling image|couldn't parse image name"
)
"""Matches the reason of a waiting pod, and the error of a task that failed for it, which has no reason code."""
UNREADY = re.compile(r"\[\w+\|(\w+)\]: [^|]*\|(.*)", re.DOTALL)
"""`[ContainersNotReady|CODE]: containers with unready status: [POD]|MESSAGE`."""
START_REASONS = {
    "ContainerCreating": "its container is being created; a large image takes minutes",
    "PodInitializing": "its init containers run",
}
UNSCHEDULED_TEXT = "the cluster has not scheduled its pod yet"
EMPTY_REASONS = frozenset({"Demistify Pending", "Scheduling", "task submitted to K8s", "pod unschedulable"})


@dataclass(frozen=True)
class RunPod:
    """One pod of a run.

    Attributes:
        node: the task's node in the workflow, such as `train-evaluate-save`.
        reason: the kubelet's termination reason of its container, such as `OOMKilled`; empty while it runs.
        waits_for: the reason why it has not started; empty afterwards.
    """

    name: str
    node: str
    reason: str
    waits_for: str = ""

    def is_of(self, node: str) -> bool:
        """Whether the pod belongs to a task; the runs of a map task `trial` are `trial-n0`, `trial-n1`, …"""
        return re.fullmatch(rf"{re.escape(node)}(-n\d+)?", self.node) is not None


class RunPods:
    """The pods of one project's runs."""

    def __init__(self, api: Any, settings: Flyte) -> None:
        self._api = api
        self._namespace = f"{settings.project}-{settings.domain}"

    @classmethod
    def connect(cls, settings: Flyte) -> RunPods | None:
        """Connect with the kubeconfig's current context, or with the pod's service account; None without both."""
        try:
            from kubernetes import client, config
        except ImportError:
            return None
        configuration = client.Configuration()
        file = os.environ.get("KUBECONFIG") or None
        is_in_pod = not file and "KUBERNETES_SERVICE_HOST" in os.environ
        try:
            if is_in_pod:
                config.load_incluster_config(client_configuration=configuration)
            else:
                config.load_kube_config(file, client_configuration=configuration)
        except (config.ConfigException, OSError, ValueError, TypeError):
            return None
        configuration.retries = False
        return cls(client.CoreV1Api(client.ApiClient(configuration)), settings)

    def list_pods(self, run: str) -> list[RunPod]:
        """The pods of a run in order of their start; none if the cluster does not answer."""
        response = self._call_or_none(
            self._api.list_namespaced_pod, self._namespace, label_selector=f"execution-id={run}", limit=500
        )
        pods = sorted(response.items, key=lambda pod: str(pod.metadata.creation_timestamp)) if response else []
        return [
            RunPod(
                pod.metadata.name,
                (pod.metadata.labels or {}).get("node-id", ""),
                _read_pod_end_reason(pod),
                _read_pod_wait_reason(pod),
            )
            for pod in pods
        ]

    def read_logs(self, run: str) -> Iterator[tuple[RunPod, str]]:
        """The last lines of each pod's log."""
        for pod in self.list_pods(run):
            # Without `_preload_content=False`, the client returns the text as the repr of bytes: "b'…'".
            response = self._call_or_none(
                self._api.read_namespaced_pod_log,
                pod.name,
                self._namespace,
                tail_lines=MAX_LOG_LINES,
                _preload_content=False,
            )
            if response is not None and response.data:
                yield pod, response.data.decode(errors="replace")

    def _call_or_none(self, function: Any, *args: Any, **named: Any) -> Any:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return function(*args, **named, _request_timeout=CALL_TIMEOUT)
        except (ApiException, HTTPError):  # no permission, unknown namespace, unreachable, or no such pod
            return None


def _read_pod_end_reason(pod: Any) -> str:
    for status in (pod.status and pod.status.container_statuses) or ():
        for state in (status.state, status.last_state):
            if state and state.terminated and state.terminated.exit_code:
                return str(state.terminated.reason or f"exit code {state.terminated.exit_code}")
    return str((pod.status and pod.status.reason) or "")


def _read_pod_wait_reason(pod: Any) -> str:
    for condition in (pod.status and pod.status.conditions) or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return str(condition.message or condition.reason or "")
    for status in (pod.status and pod.status.container_statuses) or ():
        if status.state and status.state.waiting:
            return ": ".join(filter(None, (status.state.waiting.reason, status.state.waiting.message)))
    return ""


def describe_pod_reason(reason: str) -> str:
    """The cluster's message in a reason, such as `0/1 nodes are available: 1 Insufficient cpu.`, or the reason."""
    if reason in EMPTY_REASONS:
        return UNSCHEDULED_TEXT
    match = UNREADY.fullmatch(reason)
    if match is None:
        return reason.removeprefix("Unschedulable:").strip()
    code, message = match.group(1), match.group(2).strip()
    return f"{code}: {message}" if message else START_REASONS.get(code, code)


def find_pod_pull_error(text: str) -> str | None:
    """The kubelet's message about an image that it cannot pull; None for any other text."""
    line = next((line for line in text.splitlines() if PULL_ERROR.search(line)), None)
    return None if line is None else line.rpartition("|")[2].strip()
