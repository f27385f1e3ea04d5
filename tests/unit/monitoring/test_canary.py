"""A canary's predictions against the live release's, from what pods show to Prometheus."""

from __future__ import annotations

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest

from mlapp.baseline import Baseline, summarize_predictions
from mlapp.baseline.predictions import split_baseline_predictions
from mlapp.deploy.cluster.canary_analysis import RequestCounts, explain_worse_canary, parse_request_counts
from mlapp.deploy.cluster.settings import Canary
from mlapp.monitoring.counts import Counter
from mlapp.monitoring.metrics import MonitorMetrics


def pod(trained: list[object], live: list[object], version: str) -> RequestCounts:
    """What a pod counts that was trained on some predictions and makes others."""
    registry = CollectorRegistry()
    metrics = MonitorMetrics(registry, "app")
    baseline = Baseline(rows=len(trained), predictions=summarize_predictions(trained))
    metrics.publish_baseline(version, baseline)
    counter = Counter(baseline)
    counter.add_predictions(split_baseline_predictions(live))
    metrics.add_counts(version, counter)
    counts = parse_request_counts(generate_latest(registry).decode())
    return RequestCounts(100, 0, 1.0, 100, counts.predictions)


def test_equally_frequent_labels_may_differ_and_others_may_not() -> None:
    random = np.random.default_rng(0)
    usual = random.choice(["yes", "no"], 500, p=[0.3, 0.7]).tolist()
    live = pod(usual, usual, "1")
    assert explain_worse_canary(live, pod(usual, usual[:200], "2"), Canary()) is None
    worse = explain_worse_canary(live, pod(usual, ["yes"] * 200, "2"), Canary())
    assert worse is not None
    assert "prediction is distributed differently" in worse
    assert explain_worse_canary(live, pod(usual, ["yes"] * 5, "2"), Canary()) is None  # too few to tell
    assert explain_worse_canary(live, pod(usual, ["yes"] * 200, "2"), Canary(predictions=1)) is None


def test_numbers_of_two_versions_are_compared_although_their_bins_differ() -> None:
    random = np.random.default_rng(0)
    usual = random.normal(100, 10, 2_000)
    live = pod(usual.tolist(), usual.tolist(), "1")
    same = random.normal(100, 10, 2_000)
    assert explain_worse_canary(live, pod((same + 1).tolist(), same.tolist(), "2"), Canary()) is None
    assert explain_worse_canary(live, pod((same + 12).tolist(), (same + 12).tolist(), "2"), Canary()) is not None
