"""A canary's traffic from CloudWatch metrics, which have one data point per minute and arrive some minutes late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from mlapp.config import CanaryLimits
from mlapp.deploy.aws.session import AwsSession
from mlapp.deploy.canary_watch import explain_worse_traffic, watch_canary
from mlapp.reporting import Reporter


class MetricCounts(NamedTuple):
    """A release's requests in a period: total, failed, and mean latency in seconds."""

    requests: float
    errors: float
    latency: float

    @property
    def error_rate(self) -> float:
        """Failed requests as a share of all."""
        return self.errors / self.requests if self.requests else 0.0


@dataclass(frozen=True)
class MetricSource:
    """CloudWatch metrics of one release: namespace, names and statistics, and the unit of latency."""

    session: AwsSession
    namespace: str
    requests: str
    errors: str
    latency: str
    unit: float
    """Seconds per unit of latency."""

    def read_counts(self, dimensions: dict[str, str], start: datetime) -> MetricCounts:
        """The counts since the minute of `start`."""
        client = self.session.client("cloudwatch")
        begin, end = start.replace(second=0, microsecond=0), datetime.now(timezone.utc) + timedelta(minutes=1)

        def read_points(metric: str, statistic: str) -> list[float]:
            response: dict[str, Any] = client.get_metric_statistics(
                Namespace=self.namespace,
                MetricName=metric,
                Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
                StartTime=begin,
                EndTime=end,
                Period=60,
                Statistics=[statistic],
            )
            return [float(point[statistic]) for point in response["Datapoints"]]

        with self.session.translate_errors():
            latencies = read_points(self.latency, "Average")
            mean = sum(latencies) / len(latencies) if latencies else 0.0
            requests, errors = sum(read_points(self.requests, "Sum")), sum(read_points(self.errors, "Sum"))
        return MetricCounts(requests, errors, mean * self.unit)


def watch_canary_metrics(
    read_live: Callable[[], MetricCounts],
    read_canary: Callable[[], MetricCounts],
    explain_quality: Callable[[], str | None],
    limits: CanaryLimits,
    seconds: float,
    pause: float,
    progress: Reporter,
) -> str | None:
    """Watch a canary by its metrics: see `mlapp.deploy.canary_watch.watch_canary`.

    Args:
        explain_quality: returns the reason why the canary's quality is worse, or None.
    """
    return watch_canary(
        lambda: (read_live(), read_canary()),
        lambda live, canary: explain_worse_traffic(live, canary, limits) or explain_quality(),
        limits,
        seconds,
        pause,
        progress,
        "CloudWatch metrics arrive late: use a longer --auto-promote.",
    )
