"""The cluster of the small Flyte: one node that schedules pods, pulls images, starts processes and kills them.

The reasons are those that Kubernetes and flytepropeller write (flyteplugins/go/tasks/pluginmachinery/flytek8s/
pod_helper.go, `demystifyPendingHelper` and `DemystifyFailure`, Flyte 1.16.8).
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flyteidl.core import execution_pb2, tasks_pb2

from tests.integration.flyte.preloaded import Process

Phase = execution_pb2.TaskExecution
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9, "m": 1e-3}
NAMES = {
    tasks_pb2.Resources.CPU: "cpu",
    tasks_pb2.Resources.MEMORY: "memory",
    tasks_pb2.Resources.GPU: "nvidia.com/gpu",
    tasks_pb2.Resources.EPHEMERAL_STORAGE: "ephemeral-storage",
}
OOM_KILLED = "OOMKilled"
Tell = Callable[[int, str], None]
"""Gets a pod's phase as that of a task execution, and the reason."""


class PodError(Exception):
    """A pod did not end well: flytepropeller's code and message, and whether the fault is the system's."""

    def __init__(self, code: str, message: str, *, is_system: bool = False, is_final: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.is_system = is_system
        self.is_final = is_final


@dataclass
class Pod:
    """One pod. `ended` is the reason and the exit code of its container."""

    name: str
    namespace: str
    labels: dict[str, str]
    image: str
    requests: dict[str, float]
    log: Path
    timeout: float = 0.0
    reason: str = ""
    ended: tuple[str, int] | None = None
    is_deleted: bool = False

    def describe(self) -> dict[str, Any]:
        """The pod as the Kubernetes API gives it."""
        status: dict[str, Any] = {"phase": "Pending"}
        container = {"name": self.name, "image": self.image, "imageID": "", "ready": False, "restartCount": 0}
        if self.reason.startswith("Unschedulable:"):
            message = self.reason.partition(":")[2]
            status["conditions"] = [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            ]
        elif self.ended is not None:
            reason, code = self.ended
            status["phase"] = "Failed" if code else "Succeeded"
            status["containerStatuses"] = [{**container, "state": {"terminated": {"exitCode": code, "reason": reason}}}]
        elif self.log.exists():
            status["phase"] = "Running"
        return {"metadata": {"name": self.name, "labels": self.labels}, "status": status}


@dataclass
class Nodes:
    """One node. A test changes what it has.

    Attributes:
        capacity: by Kubernetes' names of resources.
        pending: node of a workflow → why its pods do not start; they wait until the entry is removed.
        pull_grace: seconds for which flytepropeller waits for an image (`image-pull-backoff-grace-period`).
    """

    capacity: dict[str, float] = field(
        default_factory=lambda: {"cpu": 8.0, "memory": 64.0 * 2**30, "nvidia.com/gpu": 0.0, "ephemeral-storage": 2**40}
    )
    pending: dict[str, str] = field(default_factory=dict)
    pull_grace: float = 180.0
    pods: list[Pod] = field(default_factory=list)

    def run(self, pod: Pod, node: str, start: Callable[[], Process], tell: Tell, is_aborted: Callable[[], bool]) -> int:
        """Run a pod to its end; the exit code of its container.

        Raises:
            PodError: it was killed, or its image cannot be pulled.
        """
        self.pods.append(pod)
        self._schedule(pod, node, tell, is_aborted)
        self._pull(pod, tell, is_aborted)
        if is_aborted():
            pod.is_deleted = True
            raise PodError("Aborted", "aborted", is_final=True)
        process = start()
        tell(Phase.RUNNING, "")
        killed, ended, late = threading.Event(), threading.Event(), threading.Event()
        if pod.timeout:
            threading.Thread(target=_kill_after, args=(process, pod.timeout, late, ended), daemon=True).start()
        limit = pod.requests.get("memory")
        if limit:
            threading.Thread(target=_kill_above, args=(process, limit, killed, ended), daemon=True).start()
        code = process.wait()
        ended.set()
        code = code + 256 if code < 0 and not killed.is_set() and code != -9 else 137 if code == -9 else code
        pod.ended = (OOM_KILLED if killed.is_set() else "Error" if code else "Completed", code)
        if is_aborted():
            pod.is_deleted = True
        elif late.is_set():
            raise PodError("TimeoutExpired", f"task execution timeout [{pod.timeout:g}s] expired")
        elif killed.is_set() or code == 137:
            message = (
                "Pod failed. No message received from kubernetes."
                f"\r\n[{pod.name}] terminated with exit code ({code}). Reason [{pod.ended[0]}]. Message: \n."
            )
            raise PodError(OOM_KILLED if killed.is_set() else "Interrupted", message, is_system=not killed.is_set())
        return code

    def _schedule(self, pod: Pod, node: str, tell: Tell, is_aborted: Callable[[], bool]) -> None:
        while not is_aborted():
            lacking = next((name for name, wanted in pod.requests.items() if wanted > self.capacity[name]), None)
            reason = self.pending.get(node) or (
                f"Unschedulable:0/1 nodes are available: 1 Insufficient {lacking}. preemption: 0/1 nodes are "
                "available: 1 Preemption is not helpful for scheduling."
                if lacking
                else ""
            )
            pod.reason = reason
            if not reason:
                return
            tell(Phase.INITIALIZING if reason.startswith("[") else Phase.QUEUED, reason)
            time.sleep(0.02)

    def _pull(self, pod: Pod, tell: Tell, is_aborted: Callable[[], bool]) -> None:
        """A registry of the top-level domain `invalid` has no image."""
        unready = f"containers with unready status: [{pod.name}]"
        tell(Phase.INITIALIZING, f"[ContainersNotReady|ContainerCreating]: {unready}|")
        if not pod.image.partition("/")[0].endswith(".invalid"):
            return
        output = (
            ("ErrImagePull", f'failed to pull and unpack image "{pod.image}": failed to resolve reference: not found'),
            ("ImagePullBackOff", f'Back-off pulling image "{pod.image}"'),
        )
        began, turn = time.monotonic(), 0
        while not is_aborted():
            kind, message = output[turn % 2]
            tell(Phase.INITIALIZING, f"[ContainersNotReady|{kind}]: {unready}|{message}")
            if kind == "ImagePullBackOff" and time.monotonic() - began >= self.pull_grace:
                message = f"Grace period [{self.pull_grace:g}s] exceeded|{unready}|{message}"
                raise PodError(f"ContainersNotReady|{kind}", message)
            time.sleep(0.02)
            turn += 1

    def answer_api(self, path: str) -> tuple[str, bytes] | None:
        """Kubernetes' answer to a GET: its type and content; None where there is no such thing."""
        place, _, query = path.partition("?")
        parts = place.split("/")[3:]  # ["namespaces", NAMESPACE, "pods", POD, "log"]
        if len(parts) < 3 or parts[0] != "namespaces" or parts[2] != "pods":
            return None
        pods = [pod for pod in self.pods if pod.namespace == parts[1] and not pod.is_deleted]
        if len(parts) == 3:
            selector = urllib.parse.parse_qs(query).get("labelSelector", [""])[0]
            key, _, value = selector.partition("=")
            matching_pods = [pod.describe() for pod in pods if pod.labels.get(key) == value]
            return "application/json", json.dumps({"kind": "PodList", "items": matching_pods}).encode()
        log = next((pod.log for pod in pods if pod.name == parts[3] and pod.log.is_file()), None)
        return None if log is None else ("text/plain", log.read_bytes())


def read_quantities(entries: Any) -> dict[str, float]:
    """Requests or limits of a container, by Kubernetes' names."""
    return {NAMES[entry.name]: parse_quantity(entry.value) for entry in entries}


def parse_quantity(text: str) -> float:
    """`500m`, `1`, `2Gi` as a number."""
    unit = next((unit for unit in UNITS if text.endswith(unit)), "")
    return float(text.removesuffix(unit)) * UNITS.get(unit, 1)


def _kill_above(process: Process, limit: float, killed: threading.Event, ended: threading.Event) -> None:
    """What the kernel does to a container above its memory limit."""
    while not ended.wait(0.02):
        if sum(map(_resident_bytes, _family(process.pid))) > limit:
            killed.set()
            for pid in [*_family(process.pid)][1:]:
                _signal(pid)
            process.kill()
            return


def _kill_after(process: Process, seconds: float, late: threading.Event, ended: threading.Event) -> None:
    """What flytepropeller does to a task above its timeout."""
    if not ended.wait(seconds):
        late.set()
        for pid in [*_family(process.pid)][1:]:
            _signal(pid)
        process.kill()


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _family(int(child))


def _signal(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):  # it has ended
        return 0
