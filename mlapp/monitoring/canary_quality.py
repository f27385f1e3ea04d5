"""Compares a canary's quality with the live release's, if truths are known while it is watched."""

from __future__ import annotations

import logging
import math
import time

from mlapp.errors import MlappError
from mlapp.frameworks.metrics import is_better_metric
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.evaluation import Evaluation
from mlapp.monitoring.inspection import open_place_for_inspection, read_truths
from mlapp.monitoring.place import Window
from mlapp.monitoring.quality import FEWEST, LIKELY
from mlapp.monitoring.windows import Metric, Quality
from mlapp.project import Project

log = logging.getLogger("mlapp.monitoring")
PAUSES = 10
"""Time between two evaluations, as a multiple of the duration of one."""


class CanaryQuality:
    """Compares two versions on the rows that each has logged and whose truths are known.

    Args:
        since: start of the watch, in seconds since 1970.
    """

    def __init__(self, project: Project, since: float) -> None:
        self._project, self._since = project, int(since)
        self._next_look = 0.0
        self._reason: str | None = None

    def __call__(self, live: str | None, trial: str | None) -> str | None:
        """The reason why the canary's version is worse; None if it is not, or if it is unknown.

        A metric is worse if it is worse by more than `monitor.quality` allows (by default nothing), and by more than
        chance explains.
        """
        if live is None or trial is None or live == trial or self._project.settings.monitor.logs == "off":
            return None
        started = time.monotonic()
        if started < self._next_look:
            return self._reason
        try:
            self._reason = self._compare_versions(live, trial)
        except MlappError as error:
            log.warning("The quality of the canary is unknown: %s", error.what)
        self._next_look = time.monotonic() + PAUSES * (time.monotonic() - started)
        return self._reason

    def _compare_versions(self, live: str, trial: str) -> str | None:
        project, now = self._project, time.time()
        place, settings = open_place_for_inspection(project), project.settings.monitor
        if not place.names("log"):
            return None
        app = project.app
        truths = read_truths(app, ColumnPrivacy(settings.columns, app.name), place, self._since, now, None)
        window = Window(self._since, int(now) + 1 - self._since)
        qualities = Evaluation(app, project.store, place, settings).evaluate_windows(
            [(live, window), (trial, window)], truths
        )
        return explain_canary_quality(qualities[live, window], qualities[trial, window], settings.quality)


def explain_canary_quality(live: Quality, trial: Quality, allowed: dict[str, float]) -> str | None:
    """The reason why a canary's quality is worse than the live release's; None if it is not, or with too few truths.

    Args:
        allowed: metric → allowed change.
    """
    if min(live.truths, trial.truths) < FEWEST:
        return None
    for name, now in trial.details.items():
        before = live.details.get(name)
        if before is None or now.segment is not None or now.estimated or before.estimated:
            continue
        change = abs(now.value - before.value)
        error = _compute_canary_quality_error(before, now)
        is_worse = is_better_metric(name, before.value, now.value)
        if is_worse and error is not None and change > abs(allowed.get(name, 0.0)) and change > LIKELY * error:
            return (
                f"its {name} is {now.value:.3f} on {now.rows} rows whose truth is known, "
                f"against {before.value:.3f} on {before.rows}"
            )
    return None


def _compute_canary_quality_error(before: Metric, now: Metric) -> float | None:
    """The standard error of the difference, or None. A share counts at least one wrong row."""
    errors = []
    for metric in (before, now):
        error = metric.error
        if not error and 0 <= metric.value <= 1:
            share = min(max(metric.value, 1 / (metric.rows + 2)), 1 - 1 / (metric.rows + 2))
            error = math.sqrt(share * (1 - share) / metric.rows)
        if error is None:
            return None
        errors.append(error)
    return math.hypot(*errors)
