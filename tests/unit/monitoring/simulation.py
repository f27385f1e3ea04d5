"""Windows of live rows with a fixed seed, to count how often they raise an alarm.

Run it by itself for the full table: python -m tests.unit.monitoring.simulation
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from mlapp.baseline import Baseline, MetricError, build_baseline_columns
from mlapp.config import Drift
from mlapp.monitoring.counts import Counter, Counts
from mlapp.monitoring.drift import Finding, find_drifted_columns
from mlapp.monitoring.persistence import Persistence
from mlapp.monitoring.quality import QualityJudge

TRAINED = 20_000
Rows = Callable[[np.random.Generator, int], np.ndarray]

KINDS: dict[str, Rows] = {
    "normal": lambda random, rows: random.normal(100, 15, rows),
    "skewed": lambda random, rows: random.lognormal(0, 1, rows),
    "discrete": lambda random, rows: random.poisson(3, rows),
    "heavy": lambda random, rows: random.standard_t(1.5, rows),
    "constant": lambda random, rows: np.full(rows, 7.0),
}


def table(
    random: np.random.Generator, rows: int, columns: int = 20, kinds: tuple[str, ...] = tuple(KINDS)
) -> pd.DataFrame:
    """Rows of which no column drifts."""
    return pd.DataFrame({f"c{at}": KINDS[kinds[at % len(kinds)]](random, rows) for at in range(columns)})


def windows(
    count: int,
    rows: int,
    change: Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame] = lambda live, random: live,
    *,
    seed: int = 1,
    kinds: tuple[str, ...] = tuple(KINDS),
    make: Callable[[np.random.Generator, int], pd.DataFrame] | None = None,
    trained: int = TRAINED,
) -> Iterator[list[Finding]]:
    """What is found in each of `count` windows of `rows` rows."""
    random = np.random.default_rng(seed)
    draw = make or (lambda random, rows: table(random, rows, kinds=kinds))
    baseline = Baseline(rows=trained, features=build_baseline_columns(draw(random, trained)))
    counter = Counter(baseline)
    for _ in range(count):
        counter.reset_counts()
        counter.add_features(change(draw(random, rows), random))
        counts = Counts(version="1", since=0, until=1, rows=rows, columns=counter.list_column_counts())
        yield find_drifted_columns(baseline, counts, Drift())


def share(found: Iterator[list[Finding]]) -> float:
    """The share of windows with a finding."""
    return float(np.mean([bool(findings) for findings in found]))


def persistent(found: Iterator[list[Finding]]) -> int:
    """Windows in alarm once it must be seen in 2 of 3."""
    alarms = Persistence("2/3")
    return sum(bool(alarms.add({(finding.kind, finding.column) for finding in findings})) for findings in found)


def shift_first_column(size: float) -> Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]:
    """The first column moved by so many standard deviations."""
    return lambda live, random: live.assign(c0=live["c0"] + size * 15)


def categories(
    random: np.random.Generator, rows: int, shares: tuple[float, ...] = (0.5, 0.3, 0.15, 0.05)
) -> pd.DataFrame:
    """A table whose column `color` is a category."""
    values = random.choice(["red", "blue", "green", "black"], rows, p=shares)
    return table(random, rows, 19, ("normal",)).assign(color=values)


def more_black(live: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """A value's share goes from 5 to 15 %."""
    return live.assign(color=categories(random, len(live), (0.45, 0.27, 0.13, 0.15))["color"])


def new_color(live: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """One row in twenty has a value that training never saw."""
    return live.assign(color=np.where(random.random(len(live)) < 0.05, "pink", live["color"]))


def with_missing(share_missing: float) -> Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]:
    """The first column is missing in a share of the rows."""
    return lambda live, random: live.assign(c0=live["c0"].mask(random.random(len(live)) < share_missing))


def rarely_missing(random: np.random.Generator, rows: int) -> pd.DataFrame:
    """A table whose first column is missing in 0.03 % of the rows."""
    return with_missing(0.0003)(table(random, rows, kinds=("normal",)), random)


def quality(live: float, trained: float = 0.96, truths: int = 500, count: int = 500, seed: int = 1) -> float:
    """The share of windows in which the accuracy is an alarm, where it may fall by 0.02."""
    random, judge = np.random.default_rng(seed), QualityJudge()
    known = MetricError(float(np.sqrt(trained * (1 - trained) / 1_000)), 1_000)
    values = random.binomial(truths, live, count) / truths
    return float(
        np.mean([bool(judge.judge_metric("1", "accuracy", -0.02, value, trained, known, truths)) for value in values])
    )


def main(count: int = 2_000) -> None:
    """Print the whole table."""
    for rows in (300, 1_000, 10_000):
        findings = list(windows(count, rows))
        print(f"no drift, n={rows}: {share(iter(findings)):.4f} before, {persistent(iter(findings))} after", flush=True)
    normal = {"kinds": ("normal",)}
    print("0.25 sd, n=1000", share(windows(count, 1_000, shift_first_column(0.25), **normal)), flush=True)
    print("0.5 sd, n=300", share(windows(count, 300, shift_first_column(0.5), **normal)), flush=True)
    few = max(50, count // 10)
    print("0.1 sd, n=50000", share(windows(few, 50_000, shift_first_column(0.1), **normal)), flush=True)
    print(
        "0.1 sd, n=50000, other seeds",
        [share(windows(20, 50_000, shift_first_column(0.1), seed=seed, **normal)) for seed in range(2, 8)],
    )
    print("category 5 to 15 %, n=300", share(windows(count, 300, more_black, make=categories)), flush=True)
    print("missing 0.03 to 5 %, n=500", share(windows(count, 500, with_missing(0.05), make=rarely_missing)), flush=True)
    print("new category, n=300", share(windows(count, 300, new_color, make=categories)), flush=True)
    print("accuracy 0.96 to 0.91, 500 truths", quality(0.91, count=count), flush=True)
    print("accuracy 0.96 to 0.96, 500 truths", quality(0.96, count=count), flush=True)
    findings = list(windows(count, 300, make=categories))
    print("no drift of categories, n=300", share(iter(findings)), persistent(iter(findings)), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
