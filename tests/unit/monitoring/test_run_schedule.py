"""What `mlapp deploy` asks of a cluster for monitoring: a schedule, and connections."""

from __future__ import annotations

import pytest

from mlapp.config import Settings, decode_section
from mlapp.monitoring.run_schedule import has_monitoring_bucket, list_alert_ports, make_cron


def settings(**monitor):
    return decode_section(Settings, {"monitor": monitor}, "")


@pytest.mark.parametrize(
    ("window", "cron"),
    [("10s", "* * * * *"), ("5m", "*/5 * * * *"), ("1h", "2 * * * *"), ("6h", "2 */6 * * *"), ("7d", "2 0 * * *")],
)
def test_a_job_runs_once_a_window_and_not_more_than_every_minute(window, cron):
    assert make_cron(settings(url="s3://bucket/monitor", window=window)) == cron


@pytest.mark.parametrize("monitor", [{}, {"url": "data"}, {"url": "file:///data"}, {"url": "s3://b", "drift": False}])
def test_only_data_in_an_object_store_needs_a_job(monitor):
    assert not has_monitoring_bucket(settings(**monitor))
    assert make_cron(settings(**monitor)) is None


def test_the_ports_of_webhooks_are_those_of_their_urls():
    urls = ["https://hooks.example/1", "http://alertmanager:9093", "http://plain.example", "${SLACK_URL}"]
    alerts = [{"webhook": url} for url in [*urls, "https://${HOST}:8443/a", "http://host:${PORT}/a"]]

    assert list_alert_ports(settings(alerts=alerts)) == (80, 443, 8443, 9093)
