"""The report on a version in a window, as printed, stored and sent."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from mlapp.monitoring.drift import AlarmKind, Finding

State = Literal["quiet", "alarm", "empty"]


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """A finding that is an alarm, in a window.

    Attributes:
        column: the feature, prediction or field; for `quality`, the metric.
        value: the distance, the share of rows, or the metric; `threshold` is its limit.
        text: a description.
    """

    kind: AlarmKind
    column: str
    value: float
    threshold: float
    text: str

    @classmethod
    def of(cls, finding: Finding) -> Alarm:
        """The alarm of a finding."""
        value, threshold = round(finding.value, 6), round(finding.threshold, 6)
        return cls(kind=finding.kind, column=finding.column, value=value, threshold=threshold, text=finding.text)


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of one window.

    Attributes:
        error: its standard error.
        trained: the metric of the version's last split, with `trained_error`.
        rows: number of rows that it was measured on.
        estimated: whether it is an estimate from the model's confidence, without truths.
        segment: the segment, such as `city=Rome`.
    """

    value: float
    error: float | None = None
    trained: float | None = None
    trained_error: float | None = None
    rows: int = 0
    estimated: bool = False
    segment: str | None = None


class Quality(msgspec.Struct, kw_only=True):
    """Quality of a version in one window.

    Attributes:
        truths: number of rows with known truth.
        metrics: of the app's evaluator on them.
        details: the metrics with their errors, the estimates, and the metrics of segments.
        unknown_classes: class that training never saw → number of its truths.
    """

    truths: int = 0
    metrics: dict[str, float] = {}
    details: dict[str, Metric] = {}
    findings: list[Finding] = []
    unknown_classes: dict[str, int] = {}


class WindowReport(msgspec.Struct, frozen=True, kw_only=True):
    """Report on one version in one window."""

    since: datetime
    until: datetime
    version: str
    rows: int
    refused: int
    truths: int
    state: State
    metrics: dict[str, float]
    alarms: list[Alarm]
    closed: bool = True
    quality: dict[str, Metric] = {}
    distances: dict[str, float] = {}
    unknown_classes: dict[str, int] = {}


def format_window_quality(report: WindowReport) -> str:
    """The metrics of a window, or else the estimates, with a tilde."""
    estimates = {name: metric.value for name, metric in report.quality.items() if metric.estimated}
    mark = "" if report.metrics else "~"
    return ", ".join(f"{name} {mark}{value:.3g}" for name, value in (report.metrics or estimates).items())


def format_window_segments(report: WindowReport) -> list[str]:
    """The metrics of each of a window's segments."""
    metrics: dict[tuple[str, int], list[str]] = {}
    for name, metric in report.quality.items():
        if metric.segment is not None:
            text = f"{name.removesuffix(f'[{metric.segment}]')} {metric.value:.3g}"
            metrics.setdefault((metric.segment, metric.rows), []).append(text)
    return [f"{segment}: {', '.join(texts)} on {rows} rows" for (segment, rows), texts in metrics.items()]
