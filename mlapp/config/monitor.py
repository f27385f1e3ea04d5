"""`monitor:` of mlapp.yaml."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mlapp.config.section import END, Section, describe_text

POSITIVE = r"(?=[0-9.]*[1-9])[0-9]+(\.[0-9]+)?"
Rule = Annotated[
    str,
    describe_text(
        rf"^(drop|hash|round\( *{POSITIVE} *\)){END}",
        "drop, hash, or round with a number above 0",
        "drop",
        "hash",
        "round(5)",
    ),
]


class Drift(Section, frozen=True):
    """`monitor.drift:` when a difference from the training data is an alarm."""

    q: Annotated[
        float, Meta(gt=0, lt=1, description="Accepted share of false alarms, over all columns of a window.")
    ] = 0.001
    effect: Annotated[
        float, Meta(ge=0, le=1, description="Minimum Kolmogorov-Smirnov distance of a numeric column for an alarm.")
    ] = 0.05
    persist: Annotated[
        str,
        describe_text(
            r"^[1-9][0-9]{0,2}/[1-9][0-9]{0,2}" + END,
            "two integers from 1 to 999, separated by /",
            "2/3",
            description="A finding is an alarm if it appears in this many of the last windows: `2/3` is two of three.",
        ),
    ] = "2/3"
    min_rows: Annotated[int, Meta(ge=1, description="Minimum number of rows in a tested window.")] = 300
    seasonal: Annotated[
        bool, Meta(description="Also compare with the same weekday and hour of the last weeks, if any.")
    ] = False

    def __post_init__(self) -> None:
        """Check that an alarm is possible: at most as many findings as windows."""
        needed, _, windows = self.persist.partition("/")
        if int(needed) > int(windows):
            raise ValueError(f"drift.persist is {self.persist}, but 2/3 means two of three windows")


class Alert(Section, frozen=True):
    """One of `monitor.alerts:` a receiver of alarms."""

    webhook: Annotated[
        str,
        describe_text(
            r"^(https?://|\$\{)",
            "an http or https URL, or a variable",
            "https://hooks.example.org/1",
            "${ALERT_URL}",
            description="http or https URL; ${VARIABLE} takes it from the environment.",
        ),
    ]
    format: Annotated[
        Literal["json", "slack", "alertmanager"],
        Meta(description="Format of the request: mlapp's own JSON, a Slack message, or an alert for Alertmanager."),
    ] = "json"


class Retrain(Section, frozen=True):
    """`monitor.retrain:` when to retrain."""

    on: Annotated[
        Literal["quality"], Meta(description="Kind of alarm that starts a training; drift alone never does.")
    ] = "quality"
    run: Annotated[
        Literal["flyte", "local"],
        Meta(description="Where the training runs: in `mlapp monitor run`, or on Flyte."),
    ] = "local"
    at_most: Annotated[
        str,
        describe_text(
            r"^[0-9]+/(hour|day|week)" + END,
            "an integer, /, and hour, day or week",
            "1/day",
            "2/week",
            description="Maximum number of trainings in a period.",
        ),
    ] = "1/day"
    min_labels: Annotated[int, Meta(ge=0, description="Minimum number of known true values.")] = 500


class Promote(Section, frozen=True):
    """`monitor.promote:` when a retrained version replaces the served one."""

    better: Annotated[str, Meta(description="Metric in which the new version must be better.")]
    on: Annotated[
        list[Literal["test", "live"]], Meta(min_length=1, description="Data of the comparison; both when absent.")
    ] = msgspec.field(default_factory=lambda: ["test", "live"])
    alias: Annotated[
        str | None,
        Meta(description="The alias to move; the served alias when absent. The version also becomes `latest`."),
    ] = None


class Monitor(Section, frozen=True):
    """`monitor:` drift, the prediction log, live quality and alarms."""

    drift: Annotated[
        Drift | bool, Meta(description="Thresholds of drift; `false` turns counting and drift alarms off.")
    ] = msgspec.field(default_factory=Drift)
    log: Annotated[
        Literal["off", "sample", "all"] | bool,
        Meta(description="Which predictions are logged. `false` means `off`."),
    ] = "off"
    url: Annotated[str | None, Meta(description="Location of counts and log; next to the model store when absent.")] = (
        None
    )
    window: Annotated[
        str,
        describe_text(
            r"^[1-9][0-9]{0,5}[smhd]" + END,  # not the text of keep's pattern: errors find examples by it
            "an integer above 0, and s, m, h or d",
            "30s",
            "1h",
            description="Length of a window, at least 1s.",
        ),
    ] = "1h"
    columns: Annotated[
        dict[str, Rule],
        Meta(description="For each column, a rule that is applied before anything is stored: drop, hash or round(5)."),
    ] = {}
    rows: Annotated[
        str,
        describe_text(
            r"^[0-9]+(\.[0-9]+)?/(s|m|h)" + END,
            "a number, /, and s, m or h",
            "10/s",
            "600/m",
            description="Maximum rate of logged rows with `log: sample`, for each replica.",
        ),
    ] = "10/s"
    keep: Annotated[
        str,
        describe_text(
            r"^[1-9][0-9]{0,5}(s|m|h|d)" + END,
            "an integer above 0, and s, m, h or d",
            "12h",
            "30d",
            description="Retention of counts and log.",
        ),
    ] = "30d"
    max_size: Annotated[
        str,
        describe_text(
            rf"^{POSITIVE} *(B|kB|KB|MB|GB|TB){END}",
            "a number above 0, and B, kB, MB, GB or TB",
            "500MB",
            "2GB",
            description="Maximum size of the log.",
        ),
    ] = "2GB"
    segment: Annotated[
        list[str] | str | None, Meta(description="Columns by which quality is measured separately, such as `city`.")
    ] = None
    quality: Annotated[
        dict[str, float],
        Meta(description="For each metric, the change from training that is an alarm, such as accuracy: -0.03."),
    ] = {}
    alerts: list[Alert] = []
    retrain: Retrain | None = None
    promote: Promote | None = None
    run: Annotated[
        Literal["flyte"] | bool,
        Meta(
            description="What runs `mlapp monitor run`: `true`, the server or a CronJob; `flyte`, a schedule; "
            "`false`, your own scheduler."
        ),
    ] = True

    def __post_init__(self) -> None:
        """Check the values. `log` can be a boolean, because YAML reads `off` as false."""
        if self.log is True:
            raise ValueError("log must be 'sample', 'all' or 'off'")
        if self.url == "":
            raise ValueError("url is empty")
        for name, change in self.quality.items():
            if not change or not math.isfinite(change):
                raise ValueError(f"quality.{name} must be the change for the worse, such as -0.03, not {change:g}")

    @property
    def logs(self) -> Literal["off", "sample", "all"]:
        """Which predictions are logged."""
        return "off" if isinstance(self.log, bool) else self.log

    @property
    def segments(self) -> tuple[str, ...]:
        """The columns with values for which quality is measured separately."""
        return (self.segment,) if isinstance(self.segment, str) else tuple(self.segment or ())

    @property
    def tests(self) -> Drift | None:
        """The thresholds of drift, or None if it is off."""
        if isinstance(self.drift, Drift):
            return self.drift
        return Drift() if self.drift else None
