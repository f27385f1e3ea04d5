"""`--auto-promote`: compares a canary with the live release by the pods' own counters, and by quality.

From each pod's `/metrics`: `http_requests_total` (by status) and `http_request_duration_seconds`, without requests
of health checks and scrapers; and `mlapp_feature_rows_total`, the predictions. Counts start when the watch begins. A
restarted pod counts from zero, so all its counts are used. Quality comes from the prediction log.
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

UNCOUNTED_PATHS = frozenset({"/livez", "/readyz", "/health", "/metrics", "/ping"})
PAUSE = 5.0


@dataclass(frozen=True)
class RequestCounts:
    """Counters of one or several pods.

    Attributes:
        requests: the number of answered requests.
        errors: the number of requests with status 500 or above.
        seconds: the total duration of the requests whose duration was measured.
        timed: the number of requests whose duration was measured.
        predictions: rows by series, bucket and value of the prediction.
    """

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
        """Mean seconds per request."""
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
    session: DeploySession[Any], seconds: float, compare_quality: CompareQuality | None = None
) -> ReleaseRecord:
    """Watch the canary for `seconds`, then promote it. Abort as soon as it is clearly worse.

    Args:
        compare_quality: returns the reason why the canary's version is worse than the live one, or None.

    Raises:
        DeployError: the canary was aborted, or had too few requests for a decision and keeps running.
    """
    record, live_record, _ = canary_trial.require_canary_trial(session)
    if live_record is None:
        raise DeployError(
            f"Release {record.number} is a canary, but there is no live release to compare it with.",
            "Run `mlapp promote` or `mlapp abort`.",
        )
    live_release = live_record.release
    live_pods, canary_pods = WatchedRelease(session, live_record), WatchedRelease(session, record)
    limits = session.target.canary_limits

    def read_traffic() -> tuple[RequestCounts, RequestCounts]:
        session.lock.check_held()
        return live_pods.read_counts(), canary_pods.read_counts()

    def explain_canary(live: RequestCounts, canary: RequestCounts) -> str | None:
        return explain_worse_canary(live, canary, limits) or compare_canary_quality(
            compare_quality, live_release, record.release
        )

    try:
        reason = watch_canary(
            read_traffic,
            explain_canary,
            limits,
            seconds,
            PAUSE,
            session.progress,
            f"targets.{session.target.name}.canary.requests is the minimum.",
        )
    except KeyboardInterrupt:
        raise InterruptedDeployError(
            "Interrupted: the canary keeps running without a decision.", "Run `mlapp promote` or `mlapp abort`."
        ) from None
    if reason:
        record = session.target.abort_canary(session)
        raise DeployError(
            f"The canary, release {record.number}, was aborted: {reason}. The previous release serves all traffic.",
            f"`mlapp logs` shows the pods; targets.{session.target.name}.canary sets the limits.",
        )
    return session.target.promote_canary(session)


def explain_worse_canary(live: RequestCounts, canary: RequestCounts, limits: Canary) -> str | None:
    """The reason why the canary is worse by requests or predictions; None if it is not, or has too few requests."""
    if canary.requests < limits.requests:
        return None
    return canary_watch.explain_worse_traffic(live, canary, limits) or explain_canary_predictions(
        live.predictions, canary.predictions, limits.predictions
    )


class WatchedRelease:
    """One release's pods. Keeps the last counts of a pod that terminates or is unreachable."""

    def __init__(self, session: DeploySession[Any], record: ReleaseRecord) -> None:
        self._session = session
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
        target = self._session.target
        for pod in self._session.cluster.list_objects(POD, target.select_release_pods(self._record)):
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
            if sample.labels.get("handler") in UNCOUNTED_PATHS:
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
