"""Tests whether live rows differ from a version's baseline, column by column."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from mlapp.baseline import Baseline, Column
from mlapp.config import Drift
from mlapp.monitoring.counts import Counts
from mlapp.monitoring.statistics import (
    compute_categories_p,
    compute_js_distance,
    compute_ks_distance,
    compute_ks_p,
    compute_share_p,
    select_discoveries,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

AlarmKind = Literal["drift", "missing", "new_value", "out_of_range", "refused", "quality"]
JS_RATIO = 1.4
"""Smallest Jensen-Shannon distance of an alarm, as a multiple of `drift.effect`: 0.07 for 0.05."""
LEAST_SHARE = {"missing": 0.01, "new_value": 0.005, "out_of_range": 0.01, "refused": 0.01}
"""Smallest difference of shares of an alarm."""
USUAL_REFUSED = 0.001
"""The usual share of refused rows, because of mistakes of clients."""


@dataclass(frozen=True)
class Finding:
    """One test of one column.

    Attributes:
        value: the distance, or the share of rows.
        threshold: the smallest `value` of an alarm.
        p: the probability of at least this value by chance.
        is_large: whether the effect reaches the threshold beyond the error of the baseline.
    """

    kind: AlarmKind
    column: str
    value: float
    threshold: float
    p: float
    is_large: bool
    text: str


def find_drifted_columns(baseline: Baseline, counts: Counts, tests: Drift) -> list[Finding]:
    """The significant and large findings of one window. Empty if it has too few rows."""
    findings = find_drift(baseline, counts, tests)
    significant: list[Finding] = []
    for family in (("drift",), tuple(LEAST_SHARE)):  # separate, so that the conservative tests of shares cost no power
        family_findings = [finding for finding in findings if finding.kind in family]
        discovered = select_discoveries([finding.p for finding in family_findings], tests.q)
        significant += [
            finding for finding, is_one in zip(family_findings, discovered, strict=True) if is_one and finding.is_large
        ]
    return significant


def find_drift(baseline: Baseline, counts: Counts, tests: Drift) -> list[Finding]:
    """The findings of all tests of a window."""
    findings: list[Finding] = []
    if counts.rows >= tests.min_rows:
        for column in (*baseline.features, *baseline.predictions):
            live = counts.columns.get(column.name)
            if live is not None and len(live) == len(column.counts) + 3:
                findings += _test_column_for_drift(column, _scale_counts(live, counts.effective_share), tests)
    if counts.rows + counts.refused >= tests.min_rows:
        findings += _find_refused_rows_drift(counts)
    return findings


def compute_drift_distances(baseline: Baseline, counts: Counts) -> dict[str, float]:
    """The distance of each column from the baseline: Kolmogorov-Smirnov for numbers, Jensen-Shannon for categories."""
    distances = {}
    for column in (*baseline.features, *baseline.predictions):
        live = counts.columns.get(column.name)
        if live is not None and len(live) == len(column.counts) + 3 and column.kind != "text":
            distances[column.name] = compute_drift_distance(column, live)
    return distances


def compute_drift_distance(column: Column, live: list[int]) -> float:
    """The distance of one column's live counts from its baseline."""
    if column.kind == "number":
        return compute_ks_distance(*_order_rows(column, live))
    return compute_js_distance(np.array([*column.counts, column.others]), np.array(live[:-2]))


def _scale_counts(live: list[int], share: float) -> list[int]:
    """The counts scaled to the effective number of rows; see `Counts.effective_share`."""
    return live if share == 1 else [round(count * share) for count in live]


def _test_column_for_drift(column: Column, live: list[int], tests: Drift) -> list[Finding]:
    rows = sum(live)
    missing = live[-1]
    live_rows, trained_rows = rows - missing, column.rows - column.missing
    findings = [
        _compare_drift_shares(
            "missing",
            column.name,
            (column.missing, column.rows),
            (missing, rows),
            lambda now, before: (
                f"{column.name} is missing in {now} of the rows; in training it was missing in {before}."
            ),
        )
    ]
    if column.kind == "text" or not trained_rows or not live_rows:
        return findings
    if column.kind == "number":
        before, now = _order_rows(column, live)
        distance = compute_ks_distance(before, now)
        p, floor = compute_ks_p(distance, trained_rows, live_rows), tests.effect
        where = f"{column.name} is distributed differently: Kolmogorov-Smirnov distance {distance:.2f}"
        findings.append(
            _compare_drift_shares(
                "out_of_range",
                column.name,
                (1, trained_rows),
                (live[-3] + live[-2], live_rows),
                lambda now, before: (
                    f"{column.name} is outside {column.minimum:g} to {column.maximum:g}, "
                    f"the range in training, in {now} of the rows."
                ),
            )
        )
    else:
        before_values, now_values = [*column.counts, column.others], live[:-2]
        distance = compute_js_distance(np.array(before_values), np.array(now_values))
        p, floor = compute_categories_p(before_values, now_values), JS_RATIO * tests.effect
        where = f"The shares of {column.name}'s values differ: Jensen-Shannon distance {distance:.2f}"
        if column.has_all_values:
            findings.append(
                _compare_drift_shares(
                    "new_value",
                    column.name,
                    (column.singles, trained_rows),
                    (live[-3], live_rows),
                    lambda now, before: (
                        f"In {now} of the rows, {column.name} has a value that was not in the training data."
                    ),
                )
            )
    # 1.5 times the largest standard error of the baseline's distribution function.
    error = 0.75 / math.sqrt(trained_rows)
    is_large = distance >= floor + (error if column.kind == "number" else 0.0)
    findings.append(Finding("drift", column.name, distance, floor, p, is_large, f"{where}, limit {floor:.2f}."))
    return findings


def _find_refused_rows_drift(counts: Counts) -> list[Finding]:
    rows = counts.rows + counts.refused
    usual = round(USUAL_REFUSED * 1_000_000), 1_000_000
    return [
        _compare_drift_shares(
            "refused",
            field,
            usual,
            (refused, rows),
            partial("{1} of the rows were refused because of {0}.".format, field),
        )
        for field, refused in counts.fields.items()
    ]


def _compare_drift_shares(
    kind: AlarmKind,
    column: str,
    before: tuple[int, int],
    now: tuple[int, int],
    describe: Callable[[str, str], str],
) -> Finding:
    usual = before[0] / before[1] if before[1] else 0.0
    share = now[0] / now[1] if now[1] else 0.0
    threshold = usual + LEAST_SHARE[kind]
    return Finding(
        kind,
        column,
        share,
        threshold,
        compute_share_p(*before, *now),
        share >= threshold,
        describe(f"{share:.1%}", f"{usual:.1%}"),
    )


def _order_rows(column: Column, live: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and live rows from below the range to above it."""
    before = np.array([0, *column.counts, 0], dtype=np.int64)
    now = np.array([live[-3], *live[:-3], live[-2]], dtype=np.int64)
    return before, now
