"""Rules and a dashboard that Prometheus and Grafana take, and that see what they should."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers import binary

SERIES = 'mlapp_feature_rows_total{model="flowers",version="1",feature="width",le="%s",value="",pod="%s"}'
OTHERS = {
    'mlapp_monitored_rows_total{model="flowers",version="1",pod="a"}': "0+300x40",
    'mlapp_monitored_rows_total{model="flowers",version="1",pod="b"}': "0+300x40",
    SERIES % ("2", "a"): "0+60x40",
    SERIES % ("2", "b"): "0+60x40",
    SERIES % ("+Inf", "a"): "0+300x40",
    SERIES % ("+Inf", "b"): "0+300x40",
    'mlapp_feature_rows_total{model="flowers",version="1",feature="prediction",le="",value="0",pod="a"}': "0+300x40",
    'mlapp_feature_baseline_ratio{model="flowers",version="1",feature="width",le="2",value="",pod="a"}': "0.5x40",
    'mlapp_feature_baseline_ratio{model="flowers",version="1",feature="width",le="+Inf",value="",pod="a"}': "1x40",
    'mlapp_feature_baseline_ratio{model="flowers",version="1",feature="prediction",le="",value="0",pod="b"}': "0.5x40",
    'mlapp_feature_baseline_missing_ratio{model="flowers",version="1",feature="width",pod="a"}': "0x40",
    'mlapp_feature_problems_total{model="flowers",version="1",feature="width",kind="missing",pod="a"}': "0+30x40",
    'mlapp_feature_problems_total{model="flowers",version="1",feature="width",kind="refused",pod="b"}': "0+1x40",
}


def test_the_rules_add_up_all_pods_and_see_what_is_wrong(
    mlapp: Callable[..., Any], project: Callable[..., Path]
) -> None:
    """In each pod a fifth of the rows is below what half of the training rows are below."""
    root = project(mlapp__yaml="monitor: {window: 1m}\n")
    (root / "rules.yml").write_text(mlapp("eject", "rules").out)
    width = {"severity": "warning", "app": "flowers", "model": "flowers", "version": "1", "feature": "width"}
    what = "width of flowers version 1 is"
    expected = {
        "MlappFeatureDrift": [(width, f"{what} distributed differently from training: 0.30.")],
        "MlappMissingValues": [({**width, "kind": "missing"}, f"{what} missing more often than in training.")],
        "MlappUnusualValues": [],
        "MlappRowsNotRecorded": [],
    }
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": [{"series": series, "values": values} for series, values in OTHERS.items()],
                "alert_rule_test": [
                    {
                        "eval_time": "10m",
                        "alertname": name,
                        "exp_alerts": [
                            {"exp_labels": labels, "exp_annotations": {"summary": summary}}
                            for labels, summary in alerts
                        ],
                    }
                    for name, alerts in expected.items()
                ],
            }
        ],
    }
    (root / "test.yml").write_text(yaml.safe_dump(test))
    for arguments in (["check", "rules", "rules.yml"], ["test", "rules", "test.yml"]):
        result = subprocess.run(
            [binary("promtool", script="monitoring.sh"), *arguments], cwd=root, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout + result.stderr


def test_the_rules_are_an_object_of_the_operator_too(mlapp: Callable[..., Any], project: Callable[..., Path]) -> None:
    project()
    rule = yaml.safe_load(mlapp("eject", "rules", "--operator").out)
    assert (rule["kind"], rule["spec"]["groups"][0]["name"]) == ("PrometheusRule", "mlapp-flowers")


def test_grafana_s_sdk_reads_the_dashboard(mlapp: Callable[..., Any], project: Callable[..., Path]) -> None:
    dashboards = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    project()
    dashboard = dashboards.Dashboard.from_json(json.loads(mlapp("eject", "grafana").out))
    assert dashboard.title == "flowers monitoring"
    assert len(dashboard.panels or []) == 8
