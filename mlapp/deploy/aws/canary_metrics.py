"""Judge a canary by CloudWatch metrics, which have one data point per minute and arrive some minutes late."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from mlapp.deploy.aws.session import AwsSession
from mlapp.deploy.target import CompareQuality, DeployError, Release
from mlapp.reporting import Reporter


class Counts(NamedTuple):
    """A release's calls in a period: total, failed, and mean latency in milliseconds."""

    calls: float
    errors: float
    latency: float

    @property
    def error_rate(self) -> float:
        return self.errors / self.calls if self.calls else 0.0


@dataclass(frozen=True)
class Limits:
    """The limits beyond which a canary is worse than the live release.

    Args:
        calls: minimum number of calls for a judgment.
        error_rate: maximum error rate above the live release's.
        latency_ratio: maximum mean latency, as a multiple of the live release's.
    """

    calls: int
    error_rate: float
    latency_ratio: float


@dataclass(frozen=True)
class MetricSource:
    """CloudWatch metrics of one release: namespace, names and statistics, and the unit of latency."""

    session: AwsSession
    namespace: str
    calls: str
    errors: str
    latency: str
    milliseconds: float = 1.0
    """Milliseconds per unit of latency."""

    def read_counts(self, dimensions: dict[str, str], start: datetime) -> Counts:
        """The counts since the minute of `start`."""
        client = self.session.client("cloudwatch")
        begin, end = start.replace(second=0, microsecond=0), datetime.now(timezone.utc) + timedelta(minutes=1)

        def read_points(metric: str, statistic: str) -> list[float]:
            found: dict[str, Any] = client.get_metric_statistics(
                Namespace=self.namespace,
                MetricName=metric,
                Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
                StartTime=begin,
                EndTime=end,
                Period=60,
                Statistics=[statistic],
            )
            return [float(point[statistic]) for point in found["Datapoints"]]

        with self.session.translate_errors():
            latencies = read_points(self.latency, "Average")
            mean = sum(latencies) / len(latencies) if latencies else 0.0
            calls, errors = sum(read_points(self.calls, "Sum")), sum(read_points(self.errors, "Sum"))
        return Counts(calls, errors, mean * self.milliseconds)


def compare_versions(compare: CompareQuality | None, live: Release, trial: Release) -> str | None:
    """The reason why the quality of the canary's version is worse; None if it is not, or is not compared."""
    return None if compare is None else compare(live.shipment.model_version, trial.shipment.model_version)


def watch_canary(
    read_canary: Callable[[], Counts],
    read_live: Callable[[], Counts],
    seconds: float,
    limits: Limits,
    pause: float,
    progress: Reporter,
    explain_quality: Callable[[], str | None],
) -> str | None:
    """Watch a canary for `seconds`. Returns the reason as soon as it is worse than the live release, otherwise None.

    Args:
        pause: polling interval in seconds.
        explain_quality: returns the reason why the canary's quality is worse, or None.

    Raises:
        DeployError: the canary had too few calls to judge, and stays.
    """
    end, told = time.monotonic() + seconds, ""
    while True:
        left = end - time.monotonic()
        time.sleep(max(0.0, min(pause, left)))
        canary, live = read_canary(), read_live()
        line = f"canary: {_describe_counts(canary)}; live: {_describe_counts(live)}"
        if line != told:
            progress(line)
            told = line
        if reason := _find_reason(canary, live, limits) or explain_quality():
            return reason
        if left <= 0:
            break
    if canary.calls < limits.calls:
        raise DeployError(
            f"The canary had {canary.calls:.0f} requests in {seconds:.0f} s, too few to judge by "
            f"({limits.calls} are needed). It stays on trial.",
            "`mlapp promote` or `mlapp abort` it. CloudWatch metrics arrive late: use a longer --auto-promote.",
        )
    return None


def _find_reason(canary: Counts, live: Counts, limits: Limits) -> str | None:
    if canary.calls < limits.calls:
        return None
    if canary.error_rate > live.error_rate + limits.error_rate:
        return f"{canary.error_rate:.1%} of its requests failed, against {live.error_rate:.1%}"
    if live.calls >= limits.calls and canary.latency > live.latency * limits.latency_ratio:
        return f"its requests took {canary.latency:.1f} ms, against {live.latency:.1f} ms"
    return None


def _describe_counts(counts: Counts) -> str:
    return f"{counts.calls:.0f} requests, {counts.errors:.0f} failed, {counts.latency:.1f} ms"
