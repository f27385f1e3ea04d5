"""`--auto-promote`: compares a canary with the live release by the pods' own counters, and by quality.

From each pod's `/metrics`: `http_requests_total` (by status) and `http_request_duration_seconds`, without requests
of health checks and scrapers; and `mlapp_feature_rows_total`, the predictions. Counts start when the watch begins; a
restarted pod starts again at zero, and its counters are then used in full. Quality comes from the prediction log.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mlapp.config import Serve
from mlapp.deploy.cluster import releases
from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.api_errors import ApiError
from mlapp.deploy.cluster.deploy_session import DeploySession, InterruptedDeployError
from mlapp.deploy.cluster.labels import PORT
from mlapp.deploy.cluster.object_kinds import POD
from mlapp.deploy.cluster.pod_client import request_pod
from mlapp.deploy.cluster.pods import is_ready
from mlapp.deploy.cluster.releases import ReleaseRecord
from mlapp.deploy.cluster.settings import Canary
from mlapp.deploy.target import CompareQuality, DeployError
from mlapp.monitoring.canary import SERIES, explain_predictions

NOT_COUNTED = frozenset({"/livez", "/readyz", "/health", "/metrics", "/ping"})
PAUSE = 5.0


@dataclass(frozen=True)
class RequestCounts:
    """The number of answered requests, of those with status 500 or above, and the total seconds of all."""

    requests: float = 0
    errors: float = 0
    seconds: float = 0
    timed: float = 0
    predictions: Mapping[tuple[str, str, str], float] = field(default_factory=dict)

    @property
    def error_rate(self) -> float:
        """Errors as a share of the requests."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def latency(self) -> float:
        """Mean seconds of a request."""
        return self.seconds / self.timed if self.timed else 0.0

    def subtract_counts(self, before: RequestCounts) -> RequestCounts:
        """The increase since `before`; everything if the counters were reset."""
        if self.requests < before.requests:
            return self
        return RequestCounts(
            self.requests - before.requests,
            self.errors - before.errors,
            self.seconds - before.seconds,
            self.timed - before.timed,
            {key: rows - before.predictions.get(key, 0.0) for key, rows in self.predictions.items()},
        )

    def __add__(self, other: RequestCounts) -> RequestCounts:
        return RequestCounts(
            self.requests + other.requests,
            self.errors + other.errors,
            self.seconds + other.seconds,
            self.timed + other.timed,
            {
                key: self.predictions.get(key, 0.0) + other.predictions.get(key, 0.0)
                for key in {**self.predictions, **other.predictions}
            },
        )


def judge_canary(
    job: DeploySession[Any], seconds: float, compare_quality: CompareQuality | None = None
) -> ReleaseRecord:
    """Watch for `seconds`, then promote; abort as soon as the canary is clearly worse.

    Args:
        compare_quality: returns the reason why the canary's version is worse than the live one, if truths are known.

    Raises:
        DeployError: the canary was aborted, with the numbers; or it had too few requests to judge, and stays.
    """
    records = job.releases.list_records()
    before, record = releases.find_live(records), releases.find_canary(records)
    if before is None or record is None:
        raise DeployError("There is no canary.", f"Start one: `mlapp deploy --target {job.target.name} --canary 10`.")
    live_pods, trial_pods = (
        WatchedRelease(job, before),
        WatchedRelease(job, record),
    )
    end = time.monotonic() + seconds
    told = ""
    while True:
        left = end - time.monotonic()
        try:
            time.sleep(max(0.0, min(PAUSE, left)))
        except KeyboardInterrupt:
            raise InterruptedDeployError(
                "Interrupted: the canary stays on trial, undecided.", "`mlapp promote` or `mlapp abort` it."
            ) from None
        job.lock.check_held()
        live, trial = live_pods.read_counts(), trial_pods.read_counts()
        line = describe_counts(live, trial)
        if line != told:
            told = line
            job.progress(line)
        reason = explain_worse(live, trial, job.target.canary_limits)
        if reason is None and compare_quality is not None:
            versions = before.release.shipment.model_version, record.release.shipment.model_version
            reason = compare_quality(*versions)
        if reason:
            record = job.target.abort_canary(job)
            raise DeployError(
                f"The canary, release {record.number}, was aborted: {reason}. The release before serves all traffic.",
                f"`mlapp logs` shows the pods; targets.{job.target.name}.canary holds the limits.",
            )
        if left <= 0:
            break
    limits = job.target.canary_limits
    if trial.requests < limits.requests:
        raise DeployError(
            f"The canary had {trial.requests:.0f} requests in {seconds:.0f} s, too few to judge by. It stays on trial.",
            f"`mlapp promote` or `mlapp abort` it; targets.{job.target.name}.canary.requests is {limits.requests}.",
        )
    return job.target.promote_canary(job)


def explain_worse(live: RequestCounts, trial: RequestCounts, limits: Canary) -> str | None:
    """The reason why the canary is worse than the live release; None if it is not, or if it is too early to say."""
    if trial.requests < limits.requests:
        return None
    if trial.error_rate > live.error_rate + limits.error_rate:
        return f"{trial.error_rate:.1%} of its requests failed, against {live.error_rate:.1%}"
    if live.requests >= limits.requests and trial.latency > live.latency * limits.latency_ratio:
        return f"its requests took {trial.latency * 1000:.1f} ms, against {live.latency * 1000:.1f} ms"
    return explain_predictions(live.predictions, trial.predictions, limits.predictions)


def describe_counts(live: RequestCounts, trial: RequestCounts) -> str:
    """Both releases' counts in one line."""
    return "; ".join(
        f"{name}: {counts.requests:.0f} requests, {counts.error_rate:.1%} failed, {counts.latency * 1000:.1f} ms"
        for name, counts in (("canary", trial), ("live", live))
    )


class WatchedRelease:
    """One release's pods. A pod's last counts are kept if it terminates or is temporarily unreachable."""

    def __init__(self, job: DeploySession[Any], record: ReleaseRecord) -> None:
        self._job = job
        self._record = record
        self._latest: dict[str, RequestCounts] = {}
        self._scrape_pods()
        self._start = dict(self._latest)

    def read_counts(self) -> RequestCounts:
        """The counts of all the release's pods since the watch began."""
        self._scrape_pods()
        return sum(
            (counts.subtract_counts(self._start.get(pod, RequestCounts())) for pod, counts in self._latest.items()),
            RequestCounts(),
        )

    def _scrape_pods(self) -> None:
        target = self._job.target
        for pod in self._job.cluster.list_objects(POD, target.select_release_pods(self._record)):
            if is_ready(pod):
                name = pod["metadata"]["name"]
                with suppress(ApiError):
                    if (counts := target.read_counts(name, self._record)) is not None:
                        self._latest[name] = counts


def request_metrics(cluster: Cluster, serve: Serve, pod: str, port: int = PORT) -> str | None:
    """The text of a pod's `/metrics`; None if it answers with an error.

    Raises:
        ApiError: the pod is unreachable.
    """
    status, text = request_pod(cluster, serve, pod, "GET", "/metrics", port=port)
    return text.decode() if status == 200 else None


def parse_counts(text: str) -> RequestCounts:
    """Counts from text in the Prometheus format."""
    from prometheus_client.parser import text_string_to_metric_families

    requests = errors = seconds = timed = 0.0
    predictions: dict[tuple[str, str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("handler") in NOT_COUNTED:
                continue
            if sample.name == SERIES and sample.labels.get("feature", "").startswith("prediction"):
                key = sample.labels["feature"], sample.labels.get("le", ""), sample.labels.get("value", "")
                predictions[key] = predictions.get(key, 0.0) + sample.value
            if sample.name == "http_requests_total":
                requests += sample.value
                errors += sample.value if sample.labels.get("status", "").startswith("5") else 0
            elif sample.name == "http_request_duration_seconds_sum":
                seconds += sample.value
            elif sample.name == "http_request_duration_seconds_count":
                timed += sample.value
    return RequestCounts(requests, errors, seconds, timed, predictions)
