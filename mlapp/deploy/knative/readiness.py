"""Wait for a Knative Service: its conditions at the current generation, its traffic and pods, and a prediction."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.change_feed import LISTED, ChangeFeed
from mlapp.deploy.cluster.object_kinds import EVENT, KNATIVE_SERVICE, POD, Kind
from mlapp.deploy.cluster.pods import find_pod_trouble, is_pod_ready
from mlapp.deploy.cluster.rollout import RolloutError, RolloutWait

FAILURE_PATIENCE = 10.0
"""Seconds to tolerate a False condition: Knative sets it briefly while it reconciles."""


@dataclass
class KnativeWait(RolloutWait):
    """The rollout of one Service to a revision.

    Args:
        traffic: percentage of each revision, by its name.
        may_sleep: whether a revision without pods counts as ready, because Knative stops idle pods.
    """

    traffic: dict[str, int] = field(default_factory=dict)
    may_sleep: bool = False
    item: dict[str, Any] = field(default_factory=dict)

    def _add_watches(self, feed: ChangeFeed) -> None:
        feed.add_watch(KNATIVE_SERVICE, fieldSelector=f"metadata.name={self.name}")
        feed.add_watch(POD, labelSelector=f"{self.selector},{labels.REVISION}={self.revision}")
        feed.add_watch(EVENT, fieldSelector="involvedObject.kind=Pod")

    def _apply_rollout_change(self, change: tuple[Kind, str, dict[str, Any]] | None) -> None:
        if change is not None and change[0] == KNATIVE_SERVICE and change[1] != LISTED:
            self.item = change[2]
            return
        super()._apply_rollout_change(change)

    def _report_changes(self) -> None:
        super()._report_changes()
        for condition in self._read_knative_conditions():
            text = describe_knative_condition(condition)
            if self._reported.get(condition["type"]) != text:
                self._reported[condition["type"]] = text
                self.progress(f"Service/{self.name}: {text}")

    def _is_observed(self) -> bool:
        return False  # Knative owns the Deployment

    def _is_complete(self) -> bool:
        status = self.item.get("status", {})
        if status.get("observedGeneration", -1) < self.item.get("metadata", {}).get("generation", 0):
            return False
        if not any(
            condition["type"] == "Ready" and condition.get("status") == "True"
            for condition in self._read_knative_conditions()
        ):
            return False
        shares = {entry.get("revisionName"): entry.get("percent") for entry in status.get("traffic") or []}
        if any(shares.get(name) != percent for name, percent in self.traffic.items()):
            return False
        return any(map(is_pod_ready, self.pods.values())) or (self.may_sleep and not self.pods)

    def _raise_for_fatal_trouble(self) -> None:
        super()._raise_for_fatal_trouble()
        status = self.item.get("status", {})
        is_current = status.get("observedGeneration", -1) >= self.item.get("metadata", {}).get("generation", 0)
        for condition in self._read_knative_conditions() if is_current else ():
            if condition["type"] != "Ready" and condition.get("status") == "False":
                text = describe_knative_condition(condition)
                if time.monotonic() - self._trouble_since.setdefault(text, time.monotonic()) >= FAILURE_PATIENCE:
                    raise RolloutError(
                        f"Service/{self.name}: {text}{self._read_knative_logs()}",
                        "Fix the cause named above; for Pod Security set targets.knative.pod_security: restricted.",
                    )

    def _explain_timeout(self, timeout: float | None) -> str:
        after = f" after {timeout:.0f} s" if timeout else ""
        if not self.item.get("status"):
            return f"Knative has not started to process Service/{self.name}{after}: is its controller running?"
        reasons = [
            describe_knative_condition(condition)
            for condition in self._read_knative_conditions()
            if condition.get("status") != "True"
        ]
        reason = "; ".join(reasons) or "no pod answers"
        return f"Service/{self.name} is not ready{after}: {reason}{self._read_knative_logs()}"

    def _read_knative_logs(self) -> str:
        """Problems of the pods, with the last log lines of crashing ones."""
        for name, pod in self.pods.items():
            if trouble := find_pod_trouble(pod, self.warnings.get(name, ())):
                return f"; {trouble.text}{self._read_rollout_crash_log(trouble)}"
        return ""

    def _read_knative_conditions(self) -> list[dict[str, Any]]:
        return self.item.get("status", {}).get("conditions") or []


def describe_knative_condition(condition: dict[str, Any]) -> str:
    """A condition in one line."""
    reason = ": ".join(str(part) for part in (condition.get("reason"), condition.get("message")) if part)
    return f"{condition['type']} is {condition.get('status')}" + (f" ({reason})" if reason else "")
