"""Compare a canary with the live release by requests, error rate and latency, for every target."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from mlapp.config import CanaryLimits
from mlapp.deploy.abilities import CompareQuality
from mlapp.deploy.target import DeployError, Release
from mlapp.reporting import Reporter


class Traffic(Protocol):
    """A release's answered requests in a period."""

    @property
    def requests(self) -> float:
        """The number of answered requests."""
        ...

    @property
    def error_rate(self) -> float:
        """Failed requests as a share of all, from 0 to 1."""
        ...

    @property
    def latency(self) -> float:
        """Mean seconds per request."""
        ...


T = TypeVar("T", bound=Traffic)


def watch_canary(
    read_traffic: Callable[[], tuple[T, T]],
    explain_canary: Callable[[T, T], str | None],
    limits: CanaryLimits,
    seconds: float,
    pause: float,
    progress: Reporter,
    hint: str,
) -> str | None:
    """Watch a canary for `seconds`; return the reason as soon as it is worse than the live release, otherwise None.

    Args:
        read_traffic: reads the traffic of the live release and of the canary.
        explain_canary: returns the reason why the canary is worse, or None.
        pause: seconds between two readings.
        hint: advice for too few requests, in addition to `promote` and `abort`.

    Raises:
        DeployError: the canary had too few requests for a decision; it keeps running.
    """
    end, last_line = time.monotonic() + seconds, ""
    while True:
        remaining = end - time.monotonic()
        time.sleep(max(0.0, min(pause, remaining)))
        live, canary = read_traffic()
        line = describe_traffic(live, canary)
        if line != last_line:
            progress(line)
            last_line = line
        if reason := explain_canary(live, canary):
            return reason
        if remaining <= 0:
            break
    if canary.requests < limits.requests:
        raise DeployError(
            f"The canary had {canary.requests:.0f} requests in {seconds:.0f} s, too few for a decision "
            f"({limits.requests} are needed). The canary keeps running.",
            f"Run `mlapp promote` or `mlapp abort`. {hint}",
        )
    return None


def explain_worse_traffic(live: Traffic, canary: Traffic, limits: CanaryLimits) -> str | None:
    """The reason why the canary is worse than the live release; None if it is not, or has too few requests."""
    if canary.requests < limits.requests:
        return None
    if canary.error_rate > live.error_rate + limits.error_rate:
        return (
            f"{canary.error_rate:.1%} of its requests failed, compared with {live.error_rate:.1%} for the live release"
        )
    if live.requests >= limits.requests and canary.latency > live.latency * limits.latency_ratio:
        return (
            f"its requests took {canary.latency * 1000:.1f} ms, compared with {live.latency * 1000:.1f} ms for the "
            "live release"
        )
    return None


def describe_traffic(live: Traffic, canary: Traffic) -> str:
    """Both releases' traffic in one line."""
    return "; ".join(
        f"{name}: {traffic.requests:.0f} requests, {traffic.error_rate:.1%} failed, {traffic.latency * 1000:.1f} ms"
        for name, traffic in (("canary", canary), ("live", live))
    )


def compare_canary_quality(compare: CompareQuality | None, live: Release, canary: Release) -> str | None:
    """The reason why the canary's model has worse quality; None if it has not, or `compare` is None."""
    return None if compare is None else compare(live.shipment.model_version, canary.shipment.model_version)
