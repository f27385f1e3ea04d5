"""Selects and compares versions by their manifests."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from mlapp.errors import UsageError, suggest_nearest
from mlapp.store.manifest import Manifest

CONDITION = re.compile(r"\s*([\w.:-]+?)\s*(>=|<=|==|!=|>|<|=)\s*(-?[\d.]+(?:[eE][-+]?\d+)?)\s*")
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}


def select_versions(
    versions: Sequence[Manifest], *, sort: str | None = None, where: Sequence[str] = ()
) -> list[Manifest]:
    """The versions that meet all conditions, sorted by a metric of their last split if `sort` is given.

    Args:
        sort: a metric; the highest value comes last, or first with the prefix `-`. Versions without it come first.
        where: conditions such as `accuracy>=0.9`.

    Raises:
        UsageError: a condition is invalid, or no version has the metric.
    """
    metric_names = {name for version in versions for name in version.headline}
    selected = list(versions)
    for text in where:
        match = CONDITION.fullmatch(text)
        if match is None:
            raise UsageError(f"--where '{text}' is not a condition.", "Write it as 'accuracy>=0.9'.")
        name, symbol, number = match.groups()
        _require_version_query_metric(name, metric_names)
        compare = OPERATORS[symbol]
        values = [(version, version.headline.get(name)) for version in selected]
        selected = [version for version, value in values if value is not None and compare(value, float(number))]
    if sort:
        name, descending = sort.lstrip("-"), sort.startswith("-")
        _require_version_query_metric(name, metric_names)
        selected.sort(key=lambda version: _read_metric_or_lowest(version, name), reverse=descending)
    return selected


def compare_versions_side_by_side(versions: Sequence[Manifest]) -> list[tuple[str, list[Any]]]:
    """Each parameter and metric with its value in each version, or None."""
    parameters = dict.fromkeys(name for version in versions for name in version.parameters)
    rows: list[tuple[str, list[Any]]] = [
        (name, [version.parameters.get(name) for version in versions]) for name in parameters
    ]
    metrics = dict.fromkeys(
        (name, split) for version in versions for split, values in version.metrics.items() for name in values
    )
    for name, split in metrics:
        rows.append((f"{name} ({split})", [version.metrics.get(split, {}).get(name) for version in versions]))
    rows.append(("model", [version.model for version in versions]))
    rows.append(("data", [version.data.fingerprint[:12] for version in versions]))
    return rows


def _read_metric_or_lowest(version: Manifest, name: str) -> float:
    value = version.headline.get(name)
    return -math.inf if value is None else value


def _require_version_query_metric(name: str, metric_names: set[str]) -> None:
    if name not in metric_names:
        raise UsageError(
            f"No version has a metric '{name}'.{suggest_nearest(name, metric_names)}",
            f"Known: {', '.join(sorted(metric_names)) or 'none'}.",
        )
