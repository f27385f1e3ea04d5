"""Wait for an InferenceService: its pods, its conditions, and a prediction.

An InferenceService copies `status.observedGeneration` from its Deployment (or Knative Service), so the value does not
show whether KServe has seen a change. The Deployment with the release's revision, at the Deployment's own
`observedGeneration`, does. `PredictorReady` stays true during a rolling update for the same reason.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.change_feed import LISTED, ChangeFeed
from mlapp.deploy.cluster.object_kinds import EVENT, INFERENCE_SERVICE, KNATIVE_REVISION, POD, Kind
from mlapp.deploy.cluster.pods import is_pod_ready
from mlapp.deploy.cluster.rollout import RolloutError, RolloutWait
from mlapp.deploy.kserve.inference_service import INTERNAL, MODES, VISIBILITY_LABEL

NO_PARENT = "ParentStatusNotAvailable"
OLD_MODES = {"RawDeployment": "Standard", "Serverless": "Knative"}
"""Names of the modes before KServe 0.16. Later versions still accept them."""
FAILURE_PATIENCE = 10.0
"""Seconds to tolerate failed reconciles: KServe retries, and may be waiting for another object."""
FATAL_REASONS = frozenset({"ReconcileFailed", "InvalidPredictorSpec", "RevisionFailed", "RevisionMissing"})
FAILED_TRANSITIONS = frozenset({"InvalidSpec", "BlockedByFailedLoad"})
FATAL_EVENTS = frozenset({"ServerlessModeRejected"})


@dataclass
class ServiceWait(RolloutWait):
    """The rollout of one InferenceService to its new pods.

    Args:
        service: the InferenceService's name.
        mode: `standard` or `knative`.
        needs_ingress: whether its routes must be accepted too.
        percent: in Knative mode, the newest revision's percentage of the traffic.
        may_sleep: in Knative mode, whether a revision without pods counts as ready, because Knative stops idle pods.
    """

    service: str = ""
    mode: str = "standard"
    needs_ingress: bool = True
    percent: int = 100
    may_sleep: bool = False
    revisions: set[str] = field(default_factory=set)
    item: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    def _add_watches(self, feed: ChangeFeed) -> None:
        feed.add_watch(INFERENCE_SERVICE, fieldSelector=f"metadata.name={self.service}")
        feed.add_watch(EVENT, fieldSelector=f"involvedObject.name={self.service}")
        if self.mode == "standard":
            super()._add_watches(feed)
        else:
            feed.add_watch(POD, labelSelector=f"{self.selector},{labels.REVISION}={self.revision}")
            feed.add_watch(KNATIVE_REVISION, labelSelector=f"{labels.REVISION}={self.revision}")
            feed.add_watch(EVENT, fieldSelector="involvedObject.kind=Pod")

    def _apply_rollout_change(self, change: tuple[Kind, str, dict[str, Any]] | None) -> None:
        if change is not None and change[1] != LISTED:
            kind, _, item = change
            if kind == INFERENCE_SERVICE:
                self.item = item
                return
            if kind == KNATIVE_REVISION:
                self.revisions.add(item["metadata"]["name"])
                return
            if kind is EVENT and item.get("involvedObject", {}).get("kind") == INFERENCE_SERVICE.kind:
                if item.get("type") == "Warning":
                    self.events.append(item)
                return
        super()._apply_rollout_change(change)

    def _report_changes(self) -> None:
        super()._report_changes()
        for condition in self._read_service_conditions().values():
            kind, status = condition.get("type", ""), condition.get("status")
            text = f"{kind} is {status}" + (
                f": {_describe_service_condition(condition)}"
                if status != "True" and _describe_service_condition(condition)
                else ""
            )
            if self._reported.get(f"condition {kind}") != text and kind != "Stopped":
                self._reported[f"condition {kind}"] = text
                self.progress(f"InferenceService/{self.service}: {text}")

    def _is_complete(self) -> bool:
        status = self.item.get("status", {})
        if self.mode == "standard":
            template = self.deployment.get("spec", {}).get("template", {}).get("metadata", {}).get("labels") or {}
            if template.get(labels.REVISION) != self.revision or not super()._is_complete():
                return False
        else:
            predictor = status.get("components", {}).get("predictor", {})
            latest = predictor.get("latestReadyRevision")
            if latest not in self.revisions or latest != predictor.get("latestCreatedRevision"):
                return False
            if not any(map(is_pod_ready, self.pods.values())) and not self.may_sleep:
                return False
            if read_newest_revision_share(self.item, self.percent) != self.percent:
                return False
        conditions = self._read_service_conditions()
        required = ("Ready", "PredictorReady") if self.needs_ingress else ("PredictorReady",)
        return all(conditions.get(kind, {}).get("status") == "True" for kind in required)

    def _is_observed(self) -> bool:
        return self.mode == "standard" and super()._is_observed()

    def _raise_for_fatal_trouble(self) -> None:
        super()._raise_for_fatal_trouble()
        status = self.item.get("status", {})
        mode = status.get("deploymentMode")
        if mode and OLD_MODES.get(mode, mode) != MODES[self.mode]:
            raise RolloutError(
                f"KServe runs InferenceService/{self.service} in {mode} mode, not in {MODES[self.mode]} mode.",
                "Upgrade KServe to 0.17 or later, or set targets.kserve.mode to the mode of the cluster.",
            )
        for event in self.events:
            if event.get("reason") in FATAL_EVENTS:
                raise RolloutError(
                    f"KServe refused InferenceService/{self.service} ({event['reason']}): {event.get('message')}",
                    "Use targets.kserve.mode: standard, or ask the cluster's operator to install Knative Serving.",
                )
        if failure := self._find_failure():
            key = f"failure {failure}"
            if time.monotonic() - self._trouble_since.setdefault(key, time.monotonic()) >= FAILURE_PATIENCE:
                raise RolloutError(failure, "Fix the cause named above; `mlapp status` shows the conditions.")

    def _find_failure(self) -> str | None:
        """KServe's message about a spec that it cannot run."""
        if info := find_model_failure(self.item):
            return f"KServe cannot run the model ({info.get('reason')}): {info.get('message') or ''}".rstrip(": ")
        for condition in self._read_service_conditions().values():
            if condition.get("status") == "False" and condition.get("reason") in FATAL_REASONS:
                reason = _describe_service_condition(condition)
                return f"InferenceService/{self.service}: {condition['type']} is False: {reason}"
        return None

    def _explain_timeout(self, timeout: float | None) -> str:
        after = f" after {timeout:.0f} s" if timeout else ""
        conditions = self._read_service_conditions()
        if not self.item.get("status"):
            return (
                f"KServe has not started to process InferenceService/{self.service}{after}: is its controller running?"
            )
        if self._lacks_address():
            ingress = conditions.get("IngressReady", {})
            return (
                f"The pods of {self.service} answer, but it has no address{after}: {explain_missing_address(ingress)}"
            )
        reasons = [
            f"{kind} is {condition.get('status')} ({_describe_service_condition(condition)})"
            for kind, condition in conditions.items()
            if condition.get("status") != "True"
            and kind not in ("Ready", "Stopped")
            and _describe_service_condition(condition)
        ]
        reasons += [str(event.get("message")) for event in self.events[-1:]]
        if self.mode == "standard" and self.deployment:
            reasons.insert(0, super()._explain_timeout(timeout))
        elif self.mode == "standard":
            reasons.insert(0, f"KServe has created no Deployment {self.name}{after}")
        else:
            ready = sum(is_pod_ready(pod) for pod in self.pods.values())
            reasons.insert(0, f"{ready} pods of the new revision are ready{after}")
            reasons += [trouble for pod in self.pods.values() if (trouble := self._describe_trouble(pod))]
        return "; ".join(reasons)

    def _advise_on_timeout(self) -> str:
        if self._lacks_address():
            return (
                "Ask the Gateway's operator to fix it, or serve inside the cluster only: "
                f"targets.kserve.labels: {{{VISIBILITY_LABEL}: {INTERNAL}}}."
            )
        return super()._advise_on_timeout()

    def _lacks_address(self) -> bool:
        """Whether the pods are ready, but no Gateway or Ingress leads to them."""
        conditions = self._read_service_conditions()
        is_up = conditions.get("PredictorReady", {}).get("status") == "True"
        return is_up and conditions.get("IngressReady", {}).get("status") != "True"

    def _describe_trouble(self, pod: dict[str, Any]) -> str | None:
        from mlapp.deploy.cluster.pods import find_pod_trouble

        trouble = find_pod_trouble(pod, self.warnings.get(pod["metadata"]["name"], ()))
        return trouble.text + self._read_rollout_crash_log(trouble) if trouble else None

    def _read_service_conditions(self) -> dict[str, dict[str, Any]]:
        return find_service_conditions(self.item)


def read_newest_revision_share(service: dict[str, Any], default: int) -> int:
    """Percentage of the traffic that Knative sends to the newest revision; `default` if the status lacks it."""
    entries = service.get("status", {}).get("components", {}).get("predictor", {}).get("traffic")
    if not entries:
        return default
    return sum(int(entry.get("percent") or 0) for entry in entries if entry.get("latestRevision"))


def find_model_failure(item: dict[str, Any]) -> dict[str, Any] | None:
    """KServe's current failure to run the model. KServe never clears `lastFailureInfo`, so it can be outdated."""
    model = item.get("status", {}).get("modelStatus", {})
    return model.get("lastFailureInfo") if model.get("transitionStatus") in FAILED_TRANSITIONS else None


def find_service_conditions(item: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """An object's conditions by their type."""
    conditions = item.get("status", {}).get("conditions") or []
    return {condition.get("type", ""): condition for condition in conditions}


def explain_missing_address(condition: dict[str, Any]) -> str:
    """An explanation why an InferenceService has no address."""
    if condition.get("reason") == NO_PARENT:
        message = condition.get("message")
        return (
            f"no Gateway has accepted its HTTPRoute ({NO_PARENT}{': ' + message if message else ''}); "
            "the Gateway that KServe is configured with (ingress.kserveIngressGateway) is missing or not ready"
        )
    return _describe_service_condition(condition) or "KServe has created no route yet"


def _describe_service_condition(condition: dict[str, Any]) -> str:
    """Reason and message of a condition."""
    return ": ".join(str(part) for part in (condition.get("reason"), condition.get("message")) if part)
