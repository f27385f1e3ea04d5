"""Explains why a pod has not started, from what flytepropeller writes to `closure.reason`.

The formats are from flyteplugins/go/tasks/pluginmachinery/flytek8s/pod_helper.go, `demystifyPendingHelper`.
"""

from __future__ import annotations

import re

CANNOT_PULL = re.compile(
    r"ImagePullBackOff|ErrImagePull|InvalidImageName|ErrImageNeverPull|Back-off pulling image|couldn't parse image name"
)
"""Matches a reason, and the error of a task that failed because of it, which has the kubelet's message but no code."""
UNREADY = re.compile(r"\[\w+\|(\w+)\]: [^|]*\|(.*)", re.DOTALL)
"""`[ContainersNotReady|CODE]: containers with unready status: [POD]|MESSAGE`."""
STARTING = {
    "ContainerCreating": "its container is being created; a large image takes minutes",
    "PodInitializing": "its init containers run",
}
NOT_SCHEDULED = "the cluster has not scheduled its pod yet"
SAYS_NOTHING = frozenset({"Demistify Pending", "Scheduling", "task submitted to K8s", "pod unschedulable"})


def describe_pod_reason(reason: str) -> str:
    """The cluster's own message, such as `0/1 nodes are available: 1 Insufficient cpu.`; other reasons unchanged."""
    if reason in SAYS_NOTHING:
        return NOT_SCHEDULED
    match = UNREADY.fullmatch(reason)
    if match is None:
        return reason.removeprefix("Unschedulable:").strip()
    code, message = match.group(1), match.group(2).strip()
    return f"{code}: {message}" if message else STARTING.get(code, code)


def find_pod_pull_error(text: str) -> str | None:
    """The kubelet's message about an image that it cannot pull; None if `text` is about something else."""
    line = next((line for line in text.splitlines() if CANNOT_PULL.search(line)), None)
    return None if line is None else line.rpartition("|")[2].strip()
