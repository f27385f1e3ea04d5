"""What Seldon's agent counts of each model, beside every replica of a Server.

Its `/metrics` on port 9006 has `seldon_model_infer_total` and `seldon_model_infer_seconds_total` by model, also of the
models of an Experiment, and by the status of HTTP or gRPC: scheduler/pkg/metrics/agent.go of
https://github.com/SeldonIO/seldon-core, version 2.
"""

from __future__ import annotations

from mlapp.deploy.cluster.canary_analysis import RequestCounts

PORT = 9006
CALLS, SECONDS = "seldon_model_infer_total", "seldon_model_infer_seconds_total"
FAILURES = frozenset({"DataLoss", "DeadlineExceeded", "Internal", "ResourceExhausted", "Unavailable", "Unknown"})
"""Statuses of gRPC that mean that the server failed, as 500 and more do over HTTP."""


def parse_model_counts(text: str, model: str) -> RequestCounts:
    """The counts of one model from the text that Prometheus reads."""
    from prometheus_client.parser import text_string_to_metric_families

    requests = errors = seconds = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("model") != model:
                continue
            if sample.name == CALLS:
                code = sample.labels.get("code", "")
                requests += sample.value
                errors += sample.value if code.startswith("5") or code in FAILURES else 0
            elif sample.name == SECONDS:
                seconds += sample.value
    return RequestCounts(requests, errors, seconds, requests)
