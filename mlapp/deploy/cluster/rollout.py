"""Wait for a release until its own pods are available and answer, or until they clearly will not.

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

LAST_LINES = 15
ASKED = 5
"""Attempts to reach a pod; requests go through the API server and the kubelet, which can fail."""
REFUSAL = "pods refused"
REFUSED_FOR = 10.0
UNCHECKED = frozenset({401, 403})
"""Statuses of a server that requires an API key: it is up, but we cannot check its predictions."""


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
    answered: set[str] = field(default_factory=set)
    _unasked: dict[str, int] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)
    _told: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.selector = self.selector or f"{labels.INSTANCE}={self.name}"

    def wait_until_complete(self, timeout: float, lock: DeployLock) -> None:
        """Return when the rollout is complete.

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
                self._take_change(feed.next_change(min(1.0, end - time.monotonic())))
                self._report_changes()
                self._ask_rolled_out_pods()
                self._refuse_hopeless()
                if self._is_complete() and self._has_every_rollout_answer():
                    return
                if time.monotonic() > end:
                    raise RolloutError(self._explain_timeout(timeout), self._advise_on_timeout())

    def _add_watches(self, feed: ChangeFeed) -> None:
        feed.add_watch(DEPLOYMENT, fieldSelector=f"metadata.name={self.name}")
        feed.add_watch(POD, labelSelector=f"{self.selector},{labels.REVISION}={self.revision}")
        feed.add_watch(EVENT, fieldSelector="involvedObject.kind=Pod")

    def _take_change(self, change: tuple[Kind, str, dict[str, Any]] | None) -> None:
        if change is None:
            return
        kind, action, item = change
        if action == LISTED:
            if kind is POD:  # no later change mentions deleted pods
                self.pods = {}
            for one in item["items"]:
                self._take_change((kind, "ADDED", one))
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
            pod = item.get("involvedObject", {}).get("name", "")
            if pod.startswith(f"{self.name}-") and item.get("type") == "Warning":
                self.warnings.setdefault(pod, []).append(item)
            elif (
                pod in self.pods
                and not is_pod_ready(self.pods[pod])
                and _is_slow_image_pull(item)
                and name not in self._told
            ):
                said = re.sub(' image "[^"]+"', " its image", item["message"])
                self._told[name] = f"pod {pod}: {said[0].lower()}{said[1:]}"
                self.progress(self._told[name])

    def _report_changes(self) -> None:
        """Report what has changed since the last report.

        A failing startup probe is normal: the server answers it only once the model is loaded.
        """
        for name, pod in self.pods.items():
            warnings = self.warnings.get(name, ())
            found = find_pod_trouble(
                pod, [event for event in warnings if not event.get("message", "").startswith("Startup ")]
            )
            now = found.text if found else f"pod {name}: {'ready' if is_pod_ready(pod) else describe_pod_state(pod)}"
            if self._told.get(name) != now:
                self._told[name] = now
                self.progress(now)
        status, wanted = self.deployment.get("status", {}), self.deployment.get("spec", {}).get("replicas", 1)
        if self._is_observed():
            old = status.get("replicas", 0) - status.get("updatedReplicas", 0)
            leaving = f", {old} of the previous release still running" if old > 0 else ""
            now = f"{self.name}: {self._count_rollout_pods()} of {wanted} new pods available{leaving}"
            if self._told.get("") != now:
                self._told[""] = now
                self.progress(now)
            refused = self._find_rollout_refusal()
            if refused and self._told.get(REFUSAL) != refused.what:
                self._told[REFUSAL] = refused.what
                self.progress(refused.what)

    def _ask_rolled_out_pods(self) -> None:
        """Request one prediction from each new pod that is ready."""
        if self.example is None:
            return
        for name, pod in self.pods.items():
            if name in self.answered or not is_pod_ready(pod):
                continue
            try:
                answer = predict_at_pod(self.cluster, self.serve, name, self.example)
            except AnswerError as error:
                if error.status in UNCHECKED:
                    self.progress(f"pod {name} requires an API key, so its predictions are not checked")
                elif error.status in (429, 503):
                    continue  # overloaded: ask again later
                else:
                    raise RolloutError(error.what, error.todo) from None
            except ApiError as error:
                self._unasked[name] = self._unasked.get(name, 0) + 1
                if error.code in UNCHECKED or self._unasked[name] >= ASKED:
                    raise RolloutError(f"pod {name} cannot be queried: {error.what}", error.todo) from None
                continue
            else:
                self.progress(f"pod {name} answers: {str(answer['predictions'])[:60]}")
            self.answered.add(name)

    def _has_every_rollout_answer(self) -> bool:
        return self.example is None or all(
            name in self.answered for name, pod in self.pods.items() if is_pod_ready(pod)
        )

    def _is_observed(self) -> bool:
        generation = self.deployment.get("metadata", {}).get("generation", 0)
        seen = self.deployment.get("status", {}).get("observedGeneration", -1)
        return bool(generation and seen >= generation)

    def _count_rollout_pods(self) -> int:
        """The number of available new pods. The Deployment's own count includes the previous release's pods."""
        status = self.deployment.get("status", {})
        ready = sum(is_pod_ready(pod) for pod in self.pods.values())
        return min(int(status.get("availableReplicas", 0)), int(status.get("updatedReplicas", 0)), ready)

    def _is_complete(self) -> bool:
        if not self._is_observed():
            return False
        status, wanted = self.deployment.get("status", {}), self.deployment["spec"].get("replicas", 1)
        ready = sum(is_pod_ready(pod) for pod in self.pods.values())
        return bool(
            status.get("updatedReplicas", 0) == wanted
            and status.get("replicas", 0) == wanted
            and status.get("availableReplicas", 0) >= wanted
            and ready >= wanted
        )

    def _refuse_hopeless(self) -> None:
        for name, pod in self.pods.items():
            found = find_pod_trouble(pod, self.warnings.get(name, ()))
            if not found or not found.fatal:
                self._since.pop(name, None)
            elif time.monotonic() - self._since.setdefault(name, time.monotonic()) >= found.patience:
                raise RolloutError(
                    f"{found.text}{self._read_rollout_crash_log(found)}", _advise_on_rollout_trouble(found)
                )
        if not self._is_observed():
            return
        for condition in self.deployment.get("status", {}).get("conditions") or []:
            if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
                raise RolloutError(self._explain_timeout(None), self._advise_on_timeout())
        refused = self._find_rollout_refusal()
        if refused is None:
            self._since.pop(REFUSAL, None)
        elif time.monotonic() - self._since.setdefault(REFUSAL, time.monotonic()) >= self._rollout_refusal_patience():
            raise RolloutError(refused.what, refused.todo)

    def _find_rollout_refusal(self) -> DeployError | None:
        """Why the cluster creates no pods: a quota or a policy. The condition can be stale."""
        for condition in self.deployment.get("status", {}).get("conditions") or []:
            if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
                said = condition.get("message", "")
                return make_api_error(403, said, "create", "a pod", self.cluster.connection)
        return None

    def _rollout_refusal_patience(self) -> float:
        """Seconds to tolerate refused pods: terminating pods count against a quota until they end."""
        leaving = self.deployment["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)
        return REFUSED_FOR + (leaving if self._count_rollout_pods() else 0)

    def _explain_timeout(self, timeout: float | None) -> str:
        reasons = []
        for name, pod in self.pods.items():
            if found := find_pod_trouble(pod, self.warnings.get(name, ())):
                reasons.append(found.text + self._read_rollout_crash_log(found))
            elif not is_pod_ready(pod):
                reasons.append(f"pod {name} is {describe_pod_state(pod)}")
        if refused := self._find_rollout_refusal():
            reasons.append(refused.what)
        wanted = self.deployment.get("spec", {}).get("replicas", 1)
        after = f" after {timeout:.0f} s" if timeout else ""
        why = "; ".join(reasons) or "the cluster has created no pods"
        return f"{self._count_rollout_pods()} of {wanted} new pods are available{after}: {why}"

    def _advise_on_timeout(self) -> str:
        return "Look at `mlapp status` and `mlapp logs`."

    def _read_rollout_crash_log(self, found: Trouble) -> str:
        """The last log lines of a crashed container, from its previous run if the current one has none yet."""
        if not found.crashed:
            return ""
        for previous in ({"previous": "true"}, {}):
            with suppress(DeployError):
                response = self.cluster.read_pod_log(
                    found.pod, container=found.container or self.container, tailLines=str(LAST_LINES), **previous
                )
                said = [line.decode(errors="replace") for line in read_transport_lines(response)]
                if said:
                    return ". Its last lines:\n" + "\n".join(f"    {line}" for line in said)
        return ""


def _is_slow_image_pull(event: dict[str, Any]) -> bool:
    """Whether the event reports an image pull, often the slowest step of a start. Cached images do not count."""
    reason, message = event.get("reason"), event.get("message") or ""
    return reason == "Pulling" or (reason == "Pulled" and message.startswith("Successfully"))


def _advise_on_rollout_trouble(found: Trouble) -> str:
    if "pull its image" in found.text:
        return (
            "Check that the image exists and that the cluster has permission to pull it (`image_pull_secrets` of the "
            "target)."
        )
    if found.out_of_memory:
        return "Raise `resources.memory` of the target, or `resources.memory_limit` if that is set."
    if found.crashed:
        return "Fix the error in its last lines; `mlapp serve` here runs the same code."
    return "Fix the cause named above; `mlapp status` shows the state."
