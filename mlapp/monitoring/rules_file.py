"""Renders Prometheus rules and a Grafana dashboard over all pods of an app.

The series are counters that add up over pods. The rules compare the counts of all pods in a window with the shares of
the training data, which every pod exposes. The thresholds come from mlapp.yaml.
"""

from __future__ import annotations

from typing import Any

from mlapp.config import Drift, Monitor
from mlapp.monitoring.place import parse_seconds

CRITICAL = 2.3
"""Kolmogorov's distribution exceeds this with a probability of 5e-5: q = 0.001 over twenty columns."""
FEATURE_LABELS = "model, version, feature"
"""The labels of a feature's series."""


def make_rules(app: str, settings: Monitor) -> dict[str, Any]:
    """The recording and alerting rules in the form of a Prometheus rule file."""
    window = f"{max(60, parse_seconds(settings.window))}s"
    matcher = f'model="{app}"'
    return {
        "groups": [
            {
                "name": f"mlapp-{app}",
                "interval": "30s",
                "rules": [
                    *(
                        {"record": name, "expr": expression}
                        for name, expression in _list_recording_expressions(matcher, window)
                    ),
                    *(
                        {
                            "alert": name,
                            "expr": expression,
                            "for": window if name != "MlappRowsNotRecorded" else "0s",
                            "labels": {"severity": "warning", "app": app},
                            "annotations": {"summary": summary},
                        }
                        for name, expression, summary in _list_alert_expressions(
                            matcher, window, settings.tests or Drift()
                        )
                    ),
                ],
            }
        ]
    }


def _list_recording_expressions(matcher: str, window: str) -> list[tuple[str, str]]:
    """The name and the PromQL expression of each recording rule."""

    def count_rows(matchers: str, labels: str = f"{FEATURE_LABELS}, le, value") -> str:
        return f"sum by ({labels}) (increase(mlapp_feature_rows_total{{{matcher}, {matchers}}}[{window}]))"

    by = FEATURE_LABELS
    numbers, values = count_rows('le!=""'), count_rows('le=""')
    rows = f"sum by (model, version) (increase(mlapp_monitored_rows_total{{{matcher}}}[{window}]))"
    baseline = f"max by ({by}, le, value) (mlapp_feature_baseline_ratio{{{matcher}}})"
    whole = count_rows('le="+Inf"', by)
    problems = f"sum by ({by}, kind) (increase(mlapp_feature_problems_total{{{matcher}}}[{window}]))"
    return [
        ("mlapp:monitored_rows:window", rows),
        (
            "mlapp:feature_rows:ratio",
            f"({numbers} / on ({by}) group_left {whole}) or "
            f"({values} / on (model, version) group_left mlapp:monitored_rows:window)",
        ),
        (
            "mlapp:feature_drift:distance",
            f"max by ({by}) (abs(mlapp:feature_rows:ratio{{{matcher}}} - on ({by}, le, value) {baseline}))",
        ),
        (
            "mlapp:feature_problems:ratio",
            f"{problems} / on (model, version) group_left clamp_min(mlapp:monitored_rows:window, 1)",
        ),
    ]


def _list_alert_expressions(matcher: str, window: str, tests: Drift) -> list[tuple[str, str, str]]:
    """The name, the PromQL expression and the summary of each alert."""
    by = FEATURE_LABELS
    enough = f"on (model, version) group_left mlapp:monitored_rows:window >= {tests.min_rows}"
    drift = (
        f"mlapp:feature_drift:distance{{{matcher}}} > {tests.effect} and on ({by}) "
        f"(mlapp:feature_drift:distance{{{matcher}}} * on (model, version) group_left "
        f"sqrt(mlapp:monitored_rows:window)) > {CRITICAL} and {enough.replace(' group_left', '')}"
    )
    usual = f"max by ({by}) (mlapp_feature_baseline_missing_ratio{{{matcher}}})"
    missing = f'mlapp:feature_problems:ratio{{{matcher}, kind="missing"}} - on ({by}) group_left {usual} > 0.01'
    others = f'mlapp:feature_problems:ratio{{{matcher}, kind!="missing"}} > 0.01'
    text = "{{ $labels.feature }} of {{ $labels.model }} version {{ $labels.version }}"
    share = "{{ $value | humanizePercentage }}"
    distance = '{{ $value | printf "%.2f" }}'
    return [
        (
            "MlappFeatureDrift",
            drift,
            f"{text} is distributed differently from training: {distance}.",
        ),
        ("MlappMissingValues", missing, f"{text} is missing more often than in training."),
        ("MlappUnusualValues", others, f"{text}: {share} of the rows are {{{{ $labels.kind }}}}."),
        (
            "MlappRowsNotRecorded",
            f"increase(mlapp_monitor_dropped_rows_total{{{matcher}}}[{window}]) > 0",
            "Rows of {{ $labels.model }} were not recorded: the log's storage is unreachable or too slow.",
        ),
    ]


def make_prometheus_rule(app: str, rules: dict[str, Any]) -> dict[str, Any]:
    """The rules as an object of the Prometheus operator."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": f"{app}-monitoring", "labels": {"app.kubernetes.io/name": app}},
        "spec": rules,
    }


def make_dashboard(app: str) -> dict[str, Any]:
    """A Grafana dashboard for import, where the user chooses the data source."""
    matcher = f'model="{app}"'
    of_app = f"and on (instance) mlapp_monitored_rows_total{{{matcher}}}"  # requests have no label of the model
    panels = [
        ("Rows per second", f"sum by (version) (rate(mlapp_monitored_rows_total{{{matcher}}}[5m]))", "rowsps"),
        (
            "Requests by status",
            f'sum by (status) (rate(http_requests_total{{handler=~".*/predict"}}[5m]) {of_app})',
            "reqps",
        ),
        (
            "Latency, 99th percentile",
            "histogram_quantile(0.99, sum by (le) "
            f'(rate(http_request_duration_seconds_bucket{{handler=~".*/predict"}}[5m]) {of_app}))',
            "s",
        ),
        ("Distance from training", f"topk(10, mlapp:feature_drift:distance{{{matcher}}})", "none"),
        (
            "Missing, new, out-of-range and refused",
            f"topk(10, mlapp:feature_problems:ratio{{{matcher}}})",
            "percentunit",
        ),
        (
            "Predictions",
            f'mlapp:feature_rows:ratio{{{matcher}, feature=~"prediction.*", value!=""}}',
            "percentunit",
        ),
        ("Logged rows per second", f"sum(rate(mlapp_log_rows_total{{{matcher}}}[5m]))", "rowsps"),
        ("Rows not recorded", f"sum(increase(mlapp_monitor_dropped_rows_total{{{matcher}}}[5m]))", "none"),
    ]
    return {
        "uid": f"mlapp-{app}"[:40],
        "title": f"{app} monitoring",
        "tags": ["mlapp"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}]
        },
        "panels": [
            {
                "id": number,
                "type": "timeseries",
                "title": title,
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "gridPos": {"h": 8, "w": 12, "x": 12 * ((number - 1) % 2), "y": 8 * ((number - 1) // 2)},
                "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
                "targets": [{"refId": "A", "expr": expression}],
            }
            for number, (title, expression, unit) in enumerate(panels, 1)
        ],
    }
