"""The statistical tests of alarms. Uses only NumPy and the standard library: the server's image has no SciPy.

Sources: Kolmogorov-Smirnov with finite samples, Stephens, "Use of the Kolmogorov-Smirnov, Cramér-von Mises and related
statistics without extensive tables", JRSS B 32 (1970), and Press et al., "Numerical Recipes" 3rd ed., 6.14.56; the
incomplete beta function, the same, 6.4; the false discovery rate, Benjamini and Hochberg, JRSS B 57 (1995); the
Jensen-Shannon distance, Endres and Schindelin, IEEE Trans. Inf. Theory 49 (2003).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


NEGLIGIBLE = 1e-18
"""Share of a sum's first term below which later terms do not change it."""


def compute_ks_distance(baseline: NDArray[Any], live: NDArray[Any]) -> float:
    """The Kolmogorov-Smirnov distance of two histograms over the same ordered bins; 0 if one is empty."""
    if not baseline.sum() or not live.sum():
        return 0.0
    difference = np.cumsum(baseline) / baseline.sum() - np.cumsum(live) / live.sum()
    return float(np.abs(difference).max())


def compute_ks_p(distance: float, baseline_rows: int, live_rows: int) -> float:
    """The probability of at least this distance between samples of one distribution. Conservative for binned values."""
    if not baseline_rows or not live_rows:
        return 1.0
    effective = math.sqrt(baseline_rows * live_rows / (baseline_rows + live_rows))
    scaled = (effective + 0.12 + 0.11 / effective) * distance
    if scaled < 0.3:
        return 1.0
    first = math.exp(-2 * scaled * scaled)
    terms = [first]
    for k in range(2, 101):
        term = math.exp(-2 * k * k * scaled * scaled)
        if term < NEGLIGIBLE * first:
            break
        terms.append(term if k % 2 else -term)
    return min(1.0, max(0.0, 2 * math.fsum(terms)))


def compute_js_distance(baseline: NDArray[Any], live: NDArray[Any]) -> float:
    """The Jensen-Shannon distance (natural logarithm) of two histograms over the same values; 0 if one is empty."""
    if not baseline.sum() or not live.sum():
        return 0.0
    p, q = baseline / baseline.sum(), live / live.sum()
    m = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = (np.where(p > 0, p * np.log(p / m), 0).sum() + np.where(q > 0, q * np.log(q / m), 0).sum()) / 2
    return math.sqrt(max(0.0, float(divergence)))


def compute_binomial_tail(successes: int, trials: int, share: float) -> float:
    """The probability of at least this number of successes."""
    if successes <= 0:
        return 1.0
    if share <= 0:
        return 0.0
    if share >= 1 or successes > trials:
        return 1.0 if successes <= trials else 0.0
    return compute_incomplete_beta(successes, trials - successes + 1, share)


def compute_share_p(baseline: int, baseline_rows: int, live: int, live_rows: int) -> float:
    """The probability that a share in live rows is at least this much larger than in training rows, by chance.

    Given their sum, the live count is binomial with the live share of all rows (Przyborowski and Wilenski, Biometrika
    31, 1940): exact for rare counts, and conservative for others. The training count is increased by one: a value that
    never occurs in 1,000 rows can still have a frequency of 1 in 1,000.
    """
    if not live_rows:
        return 1.0
    expected = live_rows * baseline / baseline_rows if baseline_rows else 0.0
    if live - expected <= 2.5 * math.sqrt(expected + 1):  # no alarm is possible: skip the sum
        return 1.0
    return compute_binomial_tail(live, live + baseline + 1, live_rows / (live_rows + baseline_rows))


def compute_categories_p(baseline: Sequence[int], live: Sequence[int]) -> float:
    """The probability that any value's share is this much larger by chance: the smallest of the values', times their
    number (Bonferroni). Also correct for rare values, unlike a chi-square test. If one share is smaller, another one
    is larger, so only larger shares are tested.
    """
    baseline_rows, live_rows = sum(baseline), sum(live)
    values = [(b, c) for b, c in zip(baseline, live, strict=True) if b or c]
    if len(values) < 2 or not baseline_rows or not live_rows:
        return 1.0
    smallest = min(compute_share_p(b, baseline_rows, c, live_rows) for b, c in values)
    return min(1.0, smallest * len(values))


def select_discoveries(p_values: Sequence[float], q: float) -> list[bool]:
    """For each test, whether it is a discovery at the false discovery rate `q`."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    last_rank = 0
    for rank, at in enumerate(order, 1):
        if p_values[at] <= q * rank / len(p_values):
            last_rank = rank
    discoveries = [False] * len(p_values)
    for at in order[:last_rank]:
        discoveries[at] = True
    return discoveries


def compute_normal_tail(z: float) -> float:
    """The probability of a normal value above `z`."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def compute_incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - compute_incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    return front * _compute_continued_fraction(a, b, x) / a


def _compute_continued_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction, by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1.0 / (d if abs(d) > tiny else tiny)
    fraction = d
    for m in range(1, 5000):
        step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1.0 + step * d, 1.0 + step / c
        d = 1.0 / (d if abs(d) > tiny else tiny)
        c = c if abs(c) > tiny else tiny
        fraction *= d * c
        step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1.0 + step * d, 1.0 + step / c
        d = 1.0 / (d if abs(d) > tiny else tiny)
        c = c if abs(c) > tiny else tiny
        fraction *= d * c
        if abs(d * c - 1.0) < 1e-12:
            break
    return fraction
