"""From a server's metrics and mlapp's alarms to a webhook."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlapp.config import Alert
from mlapp.monitoring.alarm_ledger import Ledger
from mlapp.monitoring.alerts import AlarmEvent, make_alert_body
from mlapp.monitoring.deliveries import Deliveries
from mlapp.monitoring.place import Place
from mlapp.monitoring.windows import Alarm
from mlapp.store.folder_storage import FolderStorage
from tests import servers
from tests.hook import Hook
from tests.integration.serving.conftest import PATIENCE, run, until

EVENT = AlarmEvent(
    app="sums", version="1", kind="drift", column="a", value=0.4, threshold=0.05, text="a is distributed differently.",
    status="firing", since="2026-01-01T00:00:00+00:00", until="2026-01-01T01:00:00+00:00",
)  # fmt: skip
END = AlarmEvent({**EVENT, "status": "resolved", "since": "2026-01-01T02:00:00+00:00"})


def record(folder: Path, alerts: list[Alert], event: AlarmEvent = EVENT) -> Place:
    """Record the start or the end of an alarm, as a run does. Returns the place."""
    place = Place(FolderStorage(folder), "sums")
    ledger = Ledger(place, alerts)
    if event.status == "firing":
        alarm = Alarm(kind=event.kind, column=event["column"], value=0.4, threshold=0.05, text=event.text)
        assert ledger.begin_alarm("1", alarm, event)
    else:
        assert ledger.end_alarm("1", event.kind, event["column"], event)
    return place


def send(folder: Path, alerts: list[Alert], event: AlarmEvent = EVENT) -> None:
    """Record an event and send it."""
    Deliveries(record(folder, alerts, event), alerts).send_due_deliveries()


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


def test_alertmanager_takes_the_beginning_and_the_end_of_an_alarm(
    hook: Hook, alertmanager: str, tmp_path: Path
) -> None:
    alerts = [Alert(webhook=alertmanager, format="alertmanager")]
    send(tmp_path, alerts)
    until(lambda: len(hook.alerts("MlappDrift", "firing")) == 1)
    (active,) = httpx.get(f"{alertmanager}/api/v2/alerts", params={"filter": "alertname=MlappDrift"}).json()
    assert active["labels"] | {"app": "sums", "column": "a", "version": "1"} == active["labels"]
    assert active["annotations"]["summary"] == EVENT.text
    send(tmp_path, alerts, END)
    until(lambda: len(hook.alerts("MlappDrift", "resolved")) == 1)


def test_slack_and_json_bodies_arrive(hook: Hook, tmp_path: Path) -> None:
    before = len(hook.bodies)
    for number, format in enumerate(("slack", "json")):
        send(tmp_path / str(number), [Alert(webhook=hook.url, format=format)])
    slack, plain = hook.bodies[before:]
    assert slack == {"text": ":rotating_light: *sums* version 1, drift firing\na is distributed differently."}
    assert plain == dict(EVENT)


def test_what_a_client_sent_is_text_in_slack() -> None:
    event = AlarmEvent({**EVENT, "text": "city has new values: <!channel>, <https://example.org|log in>."})
    assert "&lt;!channel&gt;, &lt;https://example.org|log in&gt;" in make_alert_body(event, "slack")["text"]


@pytest.mark.parametrize("address", ["{hook}/moved", "file:///etc/hostname", "http://[", "{hook}\r\nX: y"])
def test_an_address_that_leads_elsewhere_is_reported_and_does_not_stop_other_receivers(
    hook: Hook, caplog: pytest.LogCaptureFixture, tmp_path: Path, address: str
) -> None:
    before = len(hook.bodies)
    alerts = [Alert(webhook=address.format(hook=hook.url)), Alert(webhook=hook.url)]
    send(tmp_path, alerts)
    assert (len(hook.bodies), hook.followed) == (before + 1, [])
    assert "An alarm was not sent" in caplog.text
    assert not Deliveries(Place(FolderStorage(tmp_path), "sums"), alerts).count_pending(), "it cannot be sent later"


def test_a_receiver_that_is_away_gets_the_start_and_the_end_later_once(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr("mlapp.monitoring.alerts.PAUSES", ())
    before, port = len(hook.bodies), servers.free_port()
    away = Alert(webhook=f"http://user:secret@127.0.0.1:{port}/token")
    alerts = [away, Alert(webhook=hook.url)]
    for event in (EVENT, END):
        send(tmp_path, alerts, event)
    assert hook.bodies[before:] == [dict(EVENT), dict(END)], "it keeps nobody from hearing"
    place = Place(FolderStorage(tmp_path), "sums")
    for _ in range(3):
        Deliveries(place, alerts).send_due_deliveries()
    assert Deliveries(place, alerts).count_pending() == {f"http://127.0.0.1:{port}": 2}
    assert len(list(tmp_path.rglob("deliveries/*/*"))) <= 4, "attempts do not pile up"
    back = Hook(port)
    with ThreadPoolExecutor(4) as runs:
        list(runs.map(lambda _: Deliveries(place, alerts).send_due_deliveries(), range(4)))
    Deliveries(place, alerts).send_due_deliveries()
    back.server.shutdown()
    assert back.bodies == [dict(EVENT), dict(END)]
    assert back.authorizations == {"Basic dXNlcjpzZWNyZXQ="}
    assert not list(tmp_path.rglob("deliveries/*/*"))
    assert len(hook.bodies) == before + 2
    assert "secret" not in caplog.text
    assert "token" not in caplog.text


def test_deliveries_end_when_they_are_old_or_many(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr("mlapp.monitoring.alerts.PAUSES", ())
    alerts = [Alert(webhook=f"http://127.0.0.1:{servers.free_port()}")]
    for event in (EVENT, END):
        place = record(tmp_path, alerts, event)
    monkeypatch.setattr("mlapp.monitoring.deliveries.MOST", 1)
    Deliveries(place, []).send_due_deliveries()  # also of a configuration without this receiver
    assert list(Deliveries(place, alerts).count_pending().values()) == [1]
    monkeypatch.setattr("mlapp.monitoring.deliveries.KEPT", 0)
    Deliveries(place, alerts).send_due_deliveries()
    assert not list(tmp_path.rglob("deliveries/*/*"))
    assert caplog.text.count("1 messages about alarms could not be delivered") == 2


def test_an_attempt_of_a_killed_run_is_repeated(hook: Hook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before, alerts = len(hook.bodies), [Alert(webhook=hook.url)]
    place = record(tmp_path, alerts)
    (delivery,) = place.names("deliveries")
    begun = time.time_ns() - 60 * 10**9
    place.storage.create_key(place.key("deliveries", delivery, "000001.json"), b'{"at": %d}' % begun)
    Deliveries(place, alerts).send_due_deliveries()
    assert len(hook.bodies) == before, "that run may still be sending"
    monkeypatch.setattr("mlapp.monitoring.deliveries.ABANDONED", 30)
    Deliveries(place, alerts).send_due_deliveries()
    assert hook.bodies[before:] == [dict(EVENT)]


def test_of_two_runs_that_record_an_event_one_sends_it(hook: Hook, tmp_path: Path) -> None:
    before, alerts = len(hook.bodies), [Alert(webhook=hook.url)]
    place = record(tmp_path, alerts)
    (delivery,) = place.names("deliveries")
    alarm, number, noted, receiver = delivery.split("-")
    later = "-".join((alarm, number, str(int(noted) + 1), receiver))
    place.storage.create_key(place.key("deliveries", later, "event.json"), b"{}")
    Deliveries(place, alerts).send_due_deliveries()
    assert hook.bodies[before:] == [dict(EVENT)]
    assert not place.names("deliveries")


def test_a_receiver_that_answers_byte_by_byte_costs_each_run_a_few_seconds(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr("mlapp.monitoring.alerts.PAUSES", (0.0,))
    monkeypatch.setattr("mlapp.monitoring.alerts.PATIENCE", 1.0)
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
    before = len(hook.bodies)
    alerts = [Alert(webhook=f"http://127.0.0.1:{server.server_port}"), Alert(webhook=hook.url)]
    try:
        for event in (EVENT, END):
            place = record(tmp_path, alerts, event)
        Deliveries(place, alerts).send_due_deliveries()
    finally:
        done.set()
        server.shutdown()
    assert len(hook.bodies) == before + 2
    assert len(asked) == 2, "two attempts for the first event, and none for the other"
    assert caplog.text.count("cannot be reached: timed out") == 1
