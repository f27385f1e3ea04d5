"""Messages about alarms whose webhook fails for a while: each arrives once, and the server tries until it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest

from mlapp.monitoring import alerts, deliveries
from mlapp.monitoring.closing import close_windows
from mlapp.monitoring.inspection import open_place_for_inspection
from mlapp.project import Project
from mlapp.serving.process.monitoring import _Closer
from tests.hook import Hook
from tests.unit.monitoring.service import Service, rows

pytest.importorskip("duckdb", reason="needs mlapp-kit[monitor]")

COLUMNS = ("income", "prediction")


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    yield found
    found.is_over.set()
    found.server.shutdown()


@pytest.fixture
def drifting_service(service: Service, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Two windows whose alarms have not been sent yet."""
    monkeypatch.setattr(alerts, "PAUSES", ())
    monkeypatch.setattr(alerts, "PATIENCE", 0.2)
    Path("mlapp.yaml").write_text(f"monitor: {{log: all, window: 10s, alerts: [{{webhook: '{hook.url}'}}]}}")
    for number in range(2):
        service.predict(rows(400, 8, number), f"r{number}")
        service.next_window()
    service.stop()
    return service


def received(hook: Hook) -> list[tuple[str, str]]:
    return sorted((event["column"], event["status"]) for event in hook.bodies)


def run(service: Service) -> None:
    """`mlapp monitor run` in a new process would read the settings again."""
    close_windows(Project.find(service.project.root))


@pytest.mark.parametrize("status", [503, 0])
def test_a_message_is_sent_again_until_the_webhook_takes_it(status: int, drifting_service: Service, hook: Hook) -> None:
    hook.failures = [(status, {})] * 2
    for _ in range(2):  # a receiver that fails gets one request in a run
        run(drifting_service)
        assert hook.bodies == []
    assert hook.requests == 2
    for _ in range(2):
        run(drifting_service)
    assert received(hook) == [(column, "firing") for column in COLUMNS]


def test_a_message_that_the_webhook_refuses_is_not_sent_again(drifting_service: Service, hook: Hook) -> None:
    hook.failures = [(404, {}), (401, {})]
    for _ in range(2):
        run(drifting_service)
    assert (hook.requests, hook.bodies) == (2, [])


@pytest.mark.parametrize("given", ["120", "date"])
def test_a_webhook_says_when_to_try_again(
    given: str, drifting_service: Service, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=float(int(time.time())))
    clocks = SimpleNamespace(
        time=lambda: clock.now, time_ns=lambda: int(clock.now * 10**9), sleep=lambda seconds: pytest.fail("it waits")
    )
    monkeypatch.setattr(alerts, "time", clocks)
    monkeypatch.setattr(deliveries, "time", clocks)
    monkeypatch.setattr(alerts, "PAUSES", (1.0, 5.0))
    hook.failures = [(429, {"Retry-After": given if given != "date" else formatdate(clock.now + 120, usegmt=True)})]
    run(drifting_service)
    for seconds, requests in ((60, 1), (58, 1), (4, 3)):
        clock.now += seconds
        run(drifting_service)
        assert hook.requests == requests
    assert received(hook) == [(column, "firing") for column in COLUMNS]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 0), ("7", 7), ("-7", 0), ("soon", 0), ("1e9", 0), ("999999999", 3600), ("٣", 0), ("Wed, 99 Oct", 0)],
)
def test_headers_retry_after(header: str | None, seconds: float) -> None:
    assert alerts._parse_retry_after(header) == seconds


def test_the_server_sends_until_the_webhook_is_back_also_after_a_restart(
    drifting_service: Service, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without predictions no window ends, and nothing else starts `mlapp monitor run`."""
    place = open_place_for_inspection(drifting_service.project)
    events: list[str] = []

    def run_here(*arguments: Any, **options: Any) -> CompletedProcess[str]:
        events.append("run")
        run(drifting_service)
        return CompletedProcess([], 0, "", "")

    def sleep(seconds: float) -> None:
        events.append("sleep")

    monkeypatch.setattr("mlapp.serving.process.monitoring.subprocess.run", run_here)
    monkeypatch.setattr("mlapp.serving.process.monitoring.time.sleep", sleep)
    project = Project.find(drifting_service.project.root)
    hook.failures = [(500, {}), (503, {})]
    _Closer(project, place, None)._close_window("0-10")
    assert events == ["sleep", "run", "sleep", "run", "sleep", "run"]
    assert received(hook) == [(column, "firing") for column in COLUMNS]

    hook.bodies.clear()
    events.clear()
    for number in range(2, 5):
        drifting_service.predict(rows(400, 0, number), f"r{number}")
        drifting_service.next_window()
    drifting_service.stop()
    hook.failures = [(500, {})]
    run(drifting_service)  # by a server that is killed while the webhook fails
    assert hook.bodies == []
    _Closer(project, place, None)._deliver_in_thread()
    assert events == ["sleep", "run"]
    assert received(hook) == [(column, "resolved") for column in COLUMNS]
    _Closer(project, place, None)._deliver_in_thread()
    assert events == ["sleep", "run"], "nothing is pending"
