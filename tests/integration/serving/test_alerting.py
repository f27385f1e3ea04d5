"""From a server's metrics, and from mlapp's own alarms, to the webhook of whoever is on duty."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlapp.config import Alert
from mlapp.monitoring.alerts import AlarmEvent, make_alert_body, send_alarms
from tests import servers
from tests.integration.serving.conftest import PATIENCE, run, until

EVENT = AlarmEvent(
    app="sums", version="1", kind="drift", column="a", value=0.4, threshold=0.05, text="a is distributed differently.",
    status="firing", since="2026-01-01T00:00:00+00:00", until="2026-01-01T01:00:00+00:00",
)  # fmt: skip


class Hook:
    """A receiver of webhooks."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.followed: list[str] = []
        bodies, followed = self.bodies, self.followed

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                if self.path.endswith("/moved"):
                    self.send_response(302)
                    self.send_header("location", "/elsewhere")
                    self.end_headers()
                    return
                bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def do_GET(self) -> None:
                followed.append(self.path)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def alerts(self, name: str, status: str) -> list[dict[str, Any]]:
        """The alerts of that name and status that Alertmanager has sent."""
        sent = [alert for body in self.bodies if isinstance(body, dict) for alert in body.get("alerts", ())]
        return [alert for alert in sent if (alert["labels"]["alertname"], alert["status"]) == (name, status)]


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    found = Hook()
    yield found
    found.server.shutdown()


@pytest.fixture(scope="module")
def alertmanager(hook: Hook) -> Iterator[str]:
    with servers.alertmanager(hook.url) as address:
        yield address


def test_drift_goes_from_the_scrape_through_ejected_rules_to_the_webhook(
    new_project, serve, hook: Hook, alertmanager: str, tmp_path: Path
) -> None:
    project = new_project()
    (project / "mlapp.yaml").write_text("monitor: {window: 1m, run: false}\n")
    ejected = run(project, "eject", "rules")
    assert ejected.returncode == 0, ejected.stderr
    # A minute is long for a test: the same rules over three seconds.
    rules = tmp_path / "rules.yml"
    rules.write_text(re.sub(r"for: 60s", "for: 1s", ejected.stdout.replace("[60s]", "[3s]")).replace("30s", "1s"))
    stop = threading.Event()
    with serve(project) as server:

        def load() -> None:
            rows = [[40 + number % 10, 0.5] for number in range(300)]
            while not stop.wait(0.2):
                httpx.post(f"{server.url}/predict", json={"inputs": rows}, timeout=PATIENCE)

        sender = threading.Thread(target=load)
        sender.start()
        try:
            with servers.prometheus(server.url.partition("//")[2], rules, alertmanager):
                until(lambda: bool(hook.alerts("MlappFeatureDrift", "firing")))
        finally:
            stop.set()
            sender.join()
    (labels,) = {json.dumps(alert["labels"], sort_keys=True) for alert in hook.alerts("MlappFeatureDrift", "firing")
                 if alert["labels"]["feature"] == "a"}  # fmt: skip
    assert json.loads(labels) | {"app": "sums", "version": "1", "severity": "warning"} == json.loads(labels)


def test_alertmanager_takes_the_beginning_and_the_end_of_an_alarm(hook: Hook, alertmanager: str) -> None:
    alerts = [Alert(webhook=alertmanager, format="alertmanager")]
    send_alarms(EVENT, alerts, None)
    until(lambda: len(hook.alerts("MlappDrift", "firing")) == 1)
    (active,) = httpx.get(f"{alertmanager}/api/v2/alerts", params={"filter": "alertname=MlappDrift"}).json()
    assert active["labels"] | {"app": "sums", "column": "a", "version": "1"} == active["labels"]
    assert active["annotations"]["summary"] == EVENT.text
    send_alarms(AlarmEvent({**EVENT, "status": "resolved", "since": "2026-01-01T02:00:00+00:00"}), alerts, None)
    until(lambda: len(hook.alerts("MlappDrift", "resolved")) == 1)


def test_slack_and_json_bodies_arrive(hook: Hook) -> None:
    before = len(hook.bodies)
    send_alarms(EVENT, [Alert(webhook=hook.url, format="slack"), Alert(webhook=hook.url)], None)
    slack, plain = hook.bodies[before:]
    assert slack == {"text": ":rotating_light: *sums* version 1, drift firing\na is distributed differently."}
    assert plain == dict(EVENT)


def test_what_a_client_sent_is_text_in_slack() -> None:
    event = AlarmEvent({**EVENT, "text": "city has new values: <!channel>, <https://example.org|log in>."})
    assert "&lt;!channel&gt;, &lt;https://example.org|log in&gt;" in make_alert_body(event, "slack")["text"]


@pytest.mark.parametrize("address", ["{hook}/moved", "file:///etc/hostname", "http://[", "{hook}\r\nX: y"])
def test_an_address_that_leads_elsewhere_is_reported_and_keeps_nobody_from_hearing(
    hook: Hook, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    before = len(hook.bodies)
    send_alarms(EVENT, [Alert(webhook=address.format(hook=hook.url)), Alert(webhook=hook.url)], None)
    assert (len(hook.bodies), hook.followed) == (before + 1, [])
    assert "An alarm was not sent" in caplog.text


def test_a_receiver_that_is_away_keeps_nobody_from_hearing(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mlapp.monitoring.alerts.PAUSES", ())
    before, told = len(hook.bodies), []
    away = Alert(webhook=f"http://user:secret@127.0.0.1:{servers.free_port()}/token")
    send_alarms(EVENT, [away, Alert(webhook=hook.url)], told.append)
    assert (len(hook.bodies), told) == (before + 1, [EVENT])
    assert "secret" not in caplog.text


def test_a_receiver_that_answers_byte_by_byte_costs_each_run_a_few_seconds(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mlapp.monitoring.alerts.PAUSES", (0.0,))
    monkeypatch.setattr("mlapp.monitoring.alerts.PATIENCE", 1.0)
    monkeypatch.setattr("mlapp.monitoring.alerts.SHORT", 0.1)
    asked: list[float] = []
    done = threading.Event()

    class Dripping(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(time.monotonic())
            while not done.wait(0.05):
                self.wfile.write(b"H")

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    before, failed = len(hook.bodies), set[str]()
    alerts = [Alert(webhook=f"http://127.0.0.1:{server.server_port}"), Alert(webhook=hook.url)]
    try:
        for _ in range(3):
            send_alarms(EVENT, alerts, None, failed)
    finally:
        done.set()
        server.shutdown()
    assert len(hook.bodies) == before + 3
    assert len(asked) == 4, "two attempts for the first alarm, and one for each of the others"
    assert caplog.text.count("cannot be reached: timed out") == 3
