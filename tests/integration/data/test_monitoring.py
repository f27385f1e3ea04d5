"""Counts, log and truths in a bucket, and an unreachable bucket."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests import servers
from tests.unit.monitoring.service import LOANS, Service, rows

pytestmark = pytest.mark.xdist_group("s3")


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {"ENDPOINT_URL": s3_server, "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    client = boto3.client(
        "s3", endpoint_url=s3_server, aws_access_key_id="key", aws_secret_access_key="secret", region_name="us-east-1"
    )
    name = f"monitor-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=name)
    return name


def test_the_whole_of_monitoring_on_s3(
    bucket: str,
    mlapp: Callable[..., Any],
    project: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    root = project(LOANS, mlapp__yaml=f"monitor: {{log: all, window: 10s, url: 's3://{bucket}/live'}}\n")
    assert mlapp("train").code == 0
    replicas = [Service(root, monkeypatch), Service(root, monkeypatch)]
    truths = []
    for number, replica in enumerate(replicas):
        predictions = replica.predict(rows(200, seed=number), f"r{number}", {"customer": number})
        replica.stop()
        truths += [{"id": f"r{number}#{at}", "truth": value} for at, value in enumerate(predictions)]
    (tmp_path / "truths.json").write_text(json.dumps(truths))
    assert mlapp("feedback", str(tmp_path / "truths.json")).code == 0
    (window,) = json.loads(mlapp("monitor", "--json").out)["windows"]
    assert (window["rows"], window["truths"], window["metrics"]["accuracy"]) == (400, 400, 1.0)
    assert mlapp("monitor", "run").code == 0
    assert "200 rows" in mlapp("monitor", "forget", "--key", "customer=1", "--yes").out
    query = mlapp("monitor", "sql", 'SELECT count(*) AS n, max("key.customer") AS last FROM log', "--json")
    assert json.loads(query.out) == [{"n": 200, "last": "0"}]
    assert mlapp("monitor", "report", "--html", "report.html").code == 0


def test_a_bucket_that_cannot_be_reached_costs_rows_of_the_log_and_no_prediction(
    mlapp: Callable[..., Any], project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "key")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{servers.free_port()}")
    root = project(LOANS, mlapp__yaml="monitor: {log: all, window: 10s, url: 's3://away/live'}\n")
    assert mlapp("train").code == 0
    service = Service(root, monkeypatch)
    monkeypatch.setattr("mlapp.monitoring.writer.MOST_BYTES", 100_000)
    for number in range(20):
        assert len(service.predict(rows(400, seed=number), f"r{number}")) == 400
        service.recorder.record_and_write()
    writer = service.recorder._writer
    assert writer is not None
    assert writer._bytes <= 100_000
    service.recorder.record_and_write()
    assert service.registry.get_sample_value("mlapp_monitor_dropped_rows_total", {"model": "loans"}) > 0
    report = mlapp("monitor")
    assert (report.code, len(report.err.strip().splitlines())) == (1, 2)
