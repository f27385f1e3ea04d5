"""Counts per model from Seldon's agent, which runs beside every replica of a Server.

Its `/metrics` on port 9006 has `seldon_model_infer_total` and `seldon_model_infer_seconds_total` by model, including
the models of an Experiment, and by HTTP or gRPC status: scheduler/pkg/metrics/agent.go of
https://github.com/SeldonIO/seldon-core, version 2.
"""

from __future__ import annotations

from mlapp.deploy.cluster.canary_analysis import RequestCounts

PORT = 9006
CALLS_SERIES, SECONDS_SERIES = "seldon_model_infer_total", "seldon_model_infer_seconds_total"
FAILURES = frozenset({"DataLoss", "DeadlineExceeded", "Internal", "ResourceExhausted", "Unavailable", "Unknown"})
"""gRPC statuses for server failures, equivalent to HTTP statuses of 500 and above."""


def parse_model_counts(text: str, model: str) -> RequestCounts:
    """The counts of one model from text in the Prometheus format."""
    from prometheus_client.parser import text_string_to_metric_families

    requests = errors = seconds = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("model") != model:
                continue
            if sample.name == CALLS_SERIES:
                code = sample.labels.get("code", "")
                requests += sample.value
                errors += sample.value if code.startswith("5") or code in FAILURES else 0
            elif sample.name == SECONDS_SERIES:
                seconds += sample.value
    return RequestCounts(requests, errors, seconds, requests)
