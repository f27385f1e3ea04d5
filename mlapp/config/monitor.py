"""`monitor:` of mlapp.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mlapp.config.section import Section

Rule = Annotated[str, Meta(pattern=r"^(drop|hash|round\(\s*\d+(\.\d+)?\s*\))$")]


class Drift(Section, frozen=True):
    """`monitor.drift:` when a difference from the training data is an alarm."""

    q: Annotated[
        float, Meta(gt=0, lt=1, description="Accepted share of false alarms, over all columns of a window.")
    ] = 0.001
    effect: Annotated[
        float, Meta(ge=0, le=1, description="Least Kolmogorov-Smirnov distance of a number that is an alarm.")
    ] = 0.05
    persist: Annotated[
        str, Meta(pattern=r"^[1-9]\d*/[1-9]\d*$", description="In how many of the last windows it must appear.")
    ] = "2/3"
    min_rows: Annotated[int, Meta(ge=1, description="Rows below which a window is not tested.")] = 300
    seasonal: Annotated[
        bool, Meta(description="Compare with the same weekday and hour of the last weeks too, where there are any.")
    ] = False

    def __post_init__(self) -> None:
        """See that an alarm can begin."""
        needed, _, windows = self.persist.partition("/")
        if int(needed) > int(windows):
            raise ValueError(f"drift.persist is {self.persist}: more windows than there are; 2/3 is two of three")


class Alert(Section, frozen=True):
    """One of `monitor.alerts:`"""

    webhook: Annotated[
        str,
        Meta(pattern=r"^(https?://|\$\{)", description="http or https URL; ${VARIABLE} takes it from the environment."),
    ]
    format: Literal["json", "slack", "alertmanager"] = "json"


class Retrain(Section, frozen=True):
    """`monitor.retrain:` when to train again."""

    on: Annotated[Literal["quality"], Meta(description="The kind of alarm; drift alone never retrains.")] = "quality"
    run: Annotated[Literal["flyte", "local"], Meta(description="Where the training runs.")] = "local"
    at_most: Annotated[str, Meta(pattern=r"^\d+/(hour|day|week)$", description="How often, as 1/day.")] = "1/day"
    min_labels: Annotated[int, Meta(ge=0, description="Minimum number of known truths.")] = 500


class Promote(Section, frozen=True):
    """`monitor.promote:` when a version that was trained again replaces the one that is served."""

    better: Annotated[str, Meta(description="The metric that decides.")]
    on: Annotated[list[Literal["test", "live"]], Meta(description="Where it must be better.")] = msgspec.field(
        default_factory=lambda: ["test", "live"]
    )
    alias: Annotated[str | None, Meta(description="The alias that is moved; the version becomes `latest` too.")] = None


class Monitor(Section, frozen=True):
    """`monitor:` drift, the prediction log, live quality and alarms."""

    drift: Annotated[
        Drift | bool, Meta(description="Thresholds of drift; false counts nothing and raises no alarm of it.")
    ] = msgspec.field(default_factory=Drift)
    log: Annotated[
        Literal["off", "sample", "all"] | bool, Meta(description="Which predictions are logged: off, sample, all.")
    ] = "off"
    url: Annotated[str | None, Meta(description="Where counts and log go; beside the model store when absent.")] = None
    window: Annotated[str, Meta(pattern=r"^[1-9]\d*(s|m|h|d)$", description="Length of a window, at least 1s.")] = "1h"
    columns: Annotated[
        dict[str, Rule], Meta(description="Column to rule, applied before anything is kept: drop, hash, round(5).")
    ] = {}
    rows: Annotated[
        str, Meta(pattern=r"^\d+(\.\d+)?/(s|m|h)$", description="Most rows of the sample, for each replica.")
    ] = "10/s"
    keep: Annotated[str, Meta(pattern=r"^\d+(s|m|h|d)$", description="Retention of counts and log.")] = "30d"
    max_size: Annotated[
        str, Meta(pattern=r"^\d+(\.\d+)?\s*(B|kB|KB|MB|GB|TB)$", description="Most bytes of the log.")
    ] = "2GB"
    segment: Annotated[list[str] | str | None, Meta(description="Columns whose values get separate quality.")] = None
    quality: Annotated[
        dict[str, float], Meta(description="Metric to the change that is an alarm, as accuracy: -0.03.")
    ] = {}
    alerts: list[Alert] = []
    retrain: Retrain | None = None
    promote: Promote | None = None
    run: Annotated[
        Literal["flyte"] | bool,
        Meta(description="Whether `mlapp serve`, or a CronJob, runs `mlapp monitor run`; flyte: a schedule on Flyte."),
    ] = True

    def __post_init__(self) -> None:
        """YAML reads `off` as false."""
        if self.log is True:
            raise ValueError("log is 'sample' or 'all', or 'off'")

    @property
    def logs(self) -> Literal["off", "sample", "all"]:
        """Which predictions are logged."""
        return "off" if isinstance(self.log, bool) else self.log

    @property
    def segments(self) -> tuple[str, ...]:
        """The columns for whose values quality is measured separately."""
        return (self.segment,) if isinstance(self.segment, str) else tuple(self.segment or ())

    @property
    def tests(self) -> Drift | None:
        """The thresholds of drift; None where it is off."""
        if isinstance(self.drift, Drift):
            return self.drift
        return Drift() if self.drift else None
