"""`--auto-promote`: compares a canary with the live release by the pods' own counters, and by quality.

From each pod's `/metrics`: `http_requests_total` (by status) and `http_request_duration_seconds`, without requests
of health checks and scrapers; and `mlapp_feature_rows_total`, the predictions. Counts start when the watch begins; a
restarted pod starts again at zero, and its counters are then used in full. Quality comes from the prediction log.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mlapp.config import Serve
from mlapp.deploy import canary_watch
from mlapp.deploy.abilities import CompareQuality
from mlapp.deploy.canary_watch import compare_canary_quality, watch_canary
from mlapp.deploy.cluster import canary_trial
from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.api_errors import ApiError
from mlapp.deploy.cluster.deploy_session import DeploySession, InterruptedDeployError
from mlapp.deploy.cluster.labels import PORT
from mlapp.deploy.cluster.object_kinds import POD
from mlapp.deploy.cluster.pod_client import PodRequest, request_pod
from mlapp.deploy.cluster.pods import is_pod_ready
from mlapp.deploy.cluster.releases import ReleaseRecord
from mlapp.deploy.cluster.settings import Canary
from mlapp.deploy.target import DeployError
from mlapp.monitoring.canary import SERIES, explain_canary_predictions

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
    record, before, _ = canary_trial.require_canary_trial(job)
    if before is None:
        raise DeployError(
            f"Release {record.number} is a canary, but there is no live release to compare it with.",
            "Run `mlapp promote` or `mlapp abort`.",
        )
    live_release = before.release
    live_pods, trial_pods = WatchedRelease(job, before), WatchedRelease(job, record)
    limits = job.target.canary_limits

    def read_traffic() -> tuple[RequestCounts, RequestCounts]:
        job.lock.check_held()
        return live_pods.read_counts(), trial_pods.read_counts()

    def explain(live: RequestCounts, trial: RequestCounts) -> str | None:
        return explain_worse_canary(live, trial, limits) or compare_canary_quality(
            compare_quality, live_release, record.release
        )

    try:
        reason = watch_canary(
            read_traffic,
            explain,
            limits,
            seconds,
            PAUSE,
            job.progress,
            f"targets.{job.target.name}.canary.requests is the minimum.",
        )
    except KeyboardInterrupt:
        raise InterruptedDeployError(
            "Interrupted: the canary keeps running without a decision.", "Run `mlapp promote` or `mlapp abort`."
        ) from None
    if reason:
        record = job.target.abort_canary(job)
        raise DeployError(
            f"The canary, release {record.number}, was aborted: {reason}. The previous release serves all traffic.",
            f"`mlapp logs` shows the pods; targets.{job.target.name}.canary sets the limits.",
        )
    return job.target.promote_canary(job)


def explain_worse_canary(live: RequestCounts, trial: RequestCounts, limits: Canary) -> str | None:
    """The reason why the canary is worse by its requests or predictions; None if it is not, or too early to say."""
    if trial.requests < limits.requests:
        return None
    return canary_watch.explain_worse_traffic(live, trial, limits) or explain_canary_predictions(
        live.predictions, trial.predictions, limits.predictions
    )


class WatchedRelease:
    """One release's pods. A pod's last counts are kept if it terminates or is temporarily unreachable."""

    def __init__(self, job: DeploySession[Any], record: ReleaseRecord) -> None:
        self._job = job
        self._record = record
        self._latest: dict[str, RequestCounts] = {}
        self._scrape_canary_pods()
        self._start = dict(self._latest)

    def read_counts(self) -> RequestCounts:
        """The counts of all the release's pods since the watch began."""
        self._scrape_canary_pods()
        return sum(
            (counts.subtract_counts(self._start.get(pod, RequestCounts())) for pod, counts in self._latest.items()),
            RequestCounts(),
        )

    def _scrape_canary_pods(self) -> None:
        target = self._job.target
        for pod in self._job.cluster.list_objects(POD, target.select_release_pods(self._record)):
            if is_pod_ready(pod):
                name = pod["metadata"]["name"]
                with suppress(ApiError):
                    if (counts := target.read_counts(name, self._record)) is not None:
                        self._latest[name] = counts


def request_pod_metrics(cluster: Cluster, serve: Serve, pod: str, port: int = PORT) -> str | None:
    """The text of a pod's `/metrics`; None if it answers with an error.

    Raises:
        ApiError: the pod is unreachable.
    """
    status, text = request_pod(cluster, serve, PodRequest(pod, "GET", "/metrics", port=port))
    return text.decode() if status == 200 else None


def parse_request_counts(text: str) -> RequestCounts:
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
