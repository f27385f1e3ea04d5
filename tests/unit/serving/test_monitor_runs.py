"""Runs of the evaluation beside a server are few, however long each takes."""

from __future__ import annotations

import subprocess
import threading

import pytest

from mlapp.serving.process import monitoring


class Runs:
    """`subprocess.run` of runs that end when the test says so."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.now, self.most = 0, 0
        self._lock = threading.Lock()

    def __call__(self, *given, **settings):
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.begun.release()
        assert self.may_end.wait(60)
        with self._lock:
            self.now -= 1
        raise subprocess.TimeoutExpired("mlapp", settings["timeout"])


@pytest.fixture
def closer() -> monitoring._Closer:
    closer = object.__new__(monitoring._Closer)
    closer._command, closer._root, closer._environment = ["mlapp"], ".", {}
    return closer


def test_at_most_two_run_at_once_and_one_that_hangs_is_killed(monkeypatch, caplog, closer) -> None:
    runs = Runs()
    monkeypatch.setattr(monitoring.subprocess, "run", runs)
    monkeypatch.setattr(monitoring, "PATIENCE", 0.01)
    threads = [threading.Thread(target=closer._run_monitor) for _ in range(3)]
    for thread in threads[:2]:
        thread.start()
        assert runs.begun.acquire(timeout=60)
    threads[2].start()
    assert not runs.begun.acquire(timeout=0.5)
    runs.may_end.set()
    assert runs.begun.acquire(timeout=60)
    for thread in threads:
        thread.join(60)
    assert (runs.most, runs.now) == (2, 0)
    assert "mlapp monitor run was killed: it took more than 6 hours" in caplog.text
