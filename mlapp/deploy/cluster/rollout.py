"""Wait until a release's own pods are available and answer, or until a failure is certain.

The Deployment's status decides (`observedGeneration`, updated, available), never a count of listed pods, which can
belong to the previous release. The pods and their events explain delays.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mlapp.config import Serve
from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.api_errors import ApiError, make_api_error
from mlapp.deploy.cluster.change_feed import LISTED, ChangeFeed
from mlapp.deploy.cluster.deploy_lock import DeployLock
from mlapp.deploy.cluster.object_kinds import DEPLOYMENT, EVENT, POD, Kind
from mlapp.deploy.cluster.pod_client import AnswerError, predict_at_pod
from mlapp.deploy.cluster.pods import Trouble, describe_pod_state, find_pod_trouble, is_pod_ready, read_pod_revision
from mlapp.deploy.cluster.transport import read_transport_lines
from mlapp.deploy.target import DeployError
from mlapp.reporting import Reporter

MAX_LOG_LINES = 15
MAX_ATTEMPTS = 5
"""Maximum attempts to reach a pod. Requests go through the API server and the kubelet, which can fail."""
REFUSAL = "pods refused"
REFUSAL_PATIENCE = 10.0
AUTH_STATUSES = frozenset({401, 403})
"""Statuses of a server that requires an API key: it runs, but its predictions cannot be checked."""


class RolloutError(DeployError):
    """The release did not become ready. `what` is the reason."""


@dataclass
class RolloutWait:
    """The rollout of one Deployment to its new pods.

    Args:
        name: the Deployment's name.
        revision: the label of its new pods.
        example: inputs that each new pod must answer; None to skip this check.
        container: the server's container in a pod.
        selector: the labels of the Deployment's pods.
    """

    cluster: Cluster
    serve: Serve
    name: str
    revision: str
    progress: Reporter
    example: Sequence[Any] | None = None
    container: str = labels.CONTAINER
    selector: str = ""
    deployment: dict[str, Any] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    answered_pods: set[str] = field(default_factory=set)
    _failed_attempts: dict[str, int] = field(default_factory=dict)
    _trouble_since: dict[str, float] = field(default_factory=dict)
    _reported: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.selector = self.selector or f"{labels.INSTANCE}={self.name}"

    def wait_until_complete(self, timeout: float, lock: DeployLock) -> None:
        """Wait until the rollout is complete.

        Args:
            timeout: seconds.
            lock: checked repeatedly while waiting.

        Raises:
            RolloutError: the rollout failed or timed out; includes the reason.
        """
        end = time.monotonic() + timeout
        with ChangeFeed(self.cluster, timeout) as feed:
            self._add_watches(feed)
            while True:
                lock.check_held()
                self._apply_rollout_change(feed.next_change(min(1.0, end - time.monotonic())))
                self._report_changes()
                self._query_new_pods()
                self._raise_for_fatal_trouble()
                if self._is_complete() and self._has_answer_of_each_pod():
                    return
                if time.monotonic() > end:
                    raise RolloutError(self._explain_timeout(timeout), self._advise_on_timeout())

    def _add_watches(self, feed: ChangeFeed) -> None:
        feed.add_watch(DEPLOYMENT, fieldSelector=f"metadata.name={self.name}")
        feed.add_watch(POD, labelSelector=f"{self.selector},{labels.REVISION}={self.revision}")
        feed.add_watch(EVENT, fieldSelector="involvedObject.kind=Pod")

    def _apply_rollout_change(self, change: tuple[Kind, str, dict[str, Any]] | None) -> None:
        if change is None:
            return
        kind, action, item = change
        if action == LISTED:
            if kind is POD:  # no later change mentions deleted pods
                self.pods = {}
            for listed_item in item["items"]:
                self._apply_rollout_change((kind, "ADDED", listed_item))
            return
        name = item["metadata"]["name"]
        if kind is DEPLOYMENT:
            self.deployment = item
        elif kind is POD:
            if action == "DELETED":
                self.pods.pop(name, None)
            elif read_pod_revision(item) == self.revision:
                self.pods[name] = item
        elif kind is EVENT:
            self._add_pod_event(name, item)

    def _add_pod_event(self, name: str, event: dict[str, Any]) -> None:
        """Remember a warning of a new pod, and report a slow pull of its image once."""
        pod = event.get("involvedObject", {}).get("name", "")
        if pod.startswith(f"{self.name}-") and event.get("type") == "Warning":
            self.warnings.setdefault(pod, []).append(event)
            return
        is_starting = pod in self.pods and not is_pod_ready(self.pods[pod])
        if is_starting and name not in self._reported and _is_slow_image_pull(event):
            message = re.sub(' image "[^"]+"', " its image", event["message"])
            self._reported[name] = f"pod {pod}: {message[0].lower()}{message[1:]}"
            self.progress(self._reported[name])

    def _report_changes(self) -> None:
        """Report what has changed since the last report.

        A failing startup probe is normal: the server answers it only once the model is loaded.
        """
        for name, pod in self.pods.items():
            warnings = self.warnings.get(name, ())
            trouble = find_pod_trouble(
                pod, [event for event in warnings if not event.get("message", "").startswith("Startup ")]
            )
            line = (
                trouble.text if trouble else f"pod {name}: {'ready' if is_pod_ready(pod) else describe_pod_state(pod)}"
            )
            if self._reported.get(name) != line:
                self._reported[name] = line
                self.progress(line)
        status, replicas = self.deployment.get("status", {}), self.deployment.get("spec", {}).get("replicas", 1)
        if self._is_observed():
            old = status.get("replicas", 0) - status.get("updatedReplicas", 0)
            leaving = f", {old} of the previous release still running" if old > 0 else ""
            line = f"{self.name}: {self._count_rollout_pods()} of {replicas} new pods available{leaving}"
            if self._reported.get("") != line:
                self._reported[""] = line
                self.progress(line)
            refusal = self._find_rollout_refusal()
            if refusal and self._reported.get(REFUSAL) != refusal.what:
                self._reported[REFUSAL] = refusal.what
                self.progress(refusal.what)

    def _query_new_pods(self) -> None:
        """Request one prediction from each new pod that is ready."""
        if self.example is None:
            return
        for name, pod in self.pods.items():
            if name in self.answered_pods or not is_pod_ready(pod):
                continue
            try:
                response = predict_at_pod(self.cluster, self.serve, name, self.example)
            except AnswerError as error:
                if error.status in AUTH_STATUSES:
                    self.progress(f"pod {name} requires an API key, so its predictions are not checked")
                elif error.status in (429, 503):
                    continue  # overloaded: ask again later
                else:
                    raise RolloutError(error.what, error.todo) from None
            except ApiError as error:
                self._failed_attempts[name] = self._failed_attempts.get(name, 0) + 1
                if error.code in AUTH_STATUSES or self._failed_attempts[name] >= MAX_ATTEMPTS:
                    raise RolloutError(f"pod {name} cannot be queried: {error.what}", error.todo) from None
                continue
            else:
                self.progress(f"pod {name} answers: {str(response['predictions'])[:60]}")
            self.answered_pods.add(name)

    def _has_answer_of_each_pod(self) -> bool:
        return self.example is None or all(
            name in self.answered_pods for name, pod in self.pods.items() if is_pod_ready(pod)
        )

    def _is_observed(self) -> bool:
        generation = self.deployment.get("metadata", {}).get("generation", 0)
        observed = self.deployment.get("status", {}).get("observedGeneration", -1)
        return bool(generation and observed >= generation)

    def _count_rollout_pods(self) -> int:
        """The number of available new pods. The Deployment's own count includes the previous release's pods."""
        status = self.deployment.get("status", {})
        ready = sum(is_pod_ready(pod) for pod in self.pods.values())
        return min(int(status.get("availableReplicas", 0)), int(status.get("updatedReplicas", 0)), ready)

    def _is_complete(self) -> bool:
        if not self._is_observed():
            return False
        status, replicas = self.deployment.get("status", {}), self.deployment["spec"].get("replicas", 1)
        ready = sum(is_pod_ready(pod) for pod in self.pods.values())
        return bool(
            status.get("updatedReplicas", 0) == replicas
            and status.get("replicas", 0) == replicas
            and status.get("availableReplicas", 0) >= replicas
            and ready >= replicas
        )

    def _raise_for_fatal_trouble(self) -> None:
        for name, pod in self.pods.items():
            trouble = find_pod_trouble(pod, self.warnings.get(name, ()))
            if not trouble or not trouble.fatal:
                self._trouble_since.pop(name, None)
            elif time.monotonic() - self._trouble_since.setdefault(name, time.monotonic()) >= trouble.patience:
                raise RolloutError(
                    f"{trouble.text}{self._read_rollout_crash_log(trouble)}", _advise_on_rollout_trouble(trouble)
                )
        if not self._is_observed():
            return
        for condition in self.deployment.get("status", {}).get("conditions") or []:
            if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
                raise RolloutError(self._explain_timeout(None), self._advise_on_timeout())
        refusal = self._find_rollout_refusal()
        if refusal is None:
            self._trouble_since.pop(REFUSAL, None)
        elif (
            time.monotonic() - self._trouble_since.setdefault(REFUSAL, time.monotonic())
            >= self._compute_refusal_patience()
        ):
            raise RolloutError(refusal.what, refusal.todo)

    def _find_rollout_refusal(self) -> DeployError | None:
        """The reason why the cluster creates no pods: a quota or a policy. The condition can be stale."""
        for condition in self.deployment.get("status", {}).get("conditions") or []:
            if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
                message = condition.get("message", "")
                return make_api_error(403, message, "create", "a pod", self.cluster.connection)
        return None

    def _compute_refusal_patience(self) -> float:
        """Seconds to tolerate refused pods: terminating pods count against a quota until they end."""
        grace = self.deployment["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)
        return REFUSAL_PATIENCE + (grace if self._count_rollout_pods() else 0)

    def _explain_timeout(self, timeout: float | None) -> str:
        reasons = []
        for name, pod in self.pods.items():
            if trouble := find_pod_trouble(pod, self.warnings.get(name, ())):
                reasons.append(trouble.text + self._read_rollout_crash_log(trouble))
            elif not is_pod_ready(pod):
                reasons.append(f"pod {name} is {describe_pod_state(pod)}")
        if refusal := self._find_rollout_refusal():
            reasons.append(refusal.what)
        replicas = self.deployment.get("spec", {}).get("replicas", 1)
        after = f" after {timeout:.0f} s" if timeout else ""
        why = "; ".join(reasons) or "the cluster has created no pods"
        return f"{self._count_rollout_pods()} of {replicas} new pods are available{after}: {why}"

    def _advise_on_timeout(self) -> str:
        return "Look at `mlapp status` and `mlapp logs`."

    def _read_rollout_crash_log(self, trouble: Trouble) -> str:
        """The last log lines of a crashed container, from its previous run if the current one has none yet."""
        if not trouble.crashed:
            return ""
        for previous in ({"previous": "true"}, {}):
            with suppress(DeployError):
                response = self.cluster.read_pod_log(
                    trouble.pod, container=trouble.container or self.container, tailLines=str(MAX_LOG_LINES), **previous
                )
                lines = [line.decode(errors="replace") for line in read_transport_lines(response)]
                if lines:
                    return ". Its last lines:\n" + "\n".join(f"    {line}" for line in lines)
        return ""


def _is_slow_image_pull(event: dict[str, Any]) -> bool:
    """Whether the event reports an image pull, often the slowest step of a start. Cached images do not count."""
    reason, message = event.get("reason"), event.get("message") or ""
    return reason == "Pulling" or (reason == "Pulled" and message.startswith("Successfully"))


def _advise_on_rollout_trouble(trouble: Trouble) -> str:
    if "pull its image" in trouble.text:
        return (
            "Check that the image exists and that the cluster has permission to pull it (`image_pull_secrets` of the "
            "target)."
        )
    if trouble.out_of_memory:
        return "Raise `resources.memory` of the target, or `resources.memory_limit` if that is set."
    if trouble.crashed:
        return "Fix the error in its last lines; `mlapp serve` here runs the same code."
    return "Fix the cause named above; `mlapp status` shows the state."
