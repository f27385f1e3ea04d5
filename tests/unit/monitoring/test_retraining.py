"""Retraining when quality falls: once, also if a process is killed, several run it, or a clock jumps."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Any

import pytest

from mlapp.errors import StoreError
from mlapp.monitoring import retraining
from mlapp.monitoring.closing import close_windows
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.inspection import open_place_for_inspection
from mlapp.monitoring.trainings import ABANDONED, ATTEMPTS, Attempt, Result, Trainings
from mlapp.monitoring.truth import Truths
from mlapp.project import Project
from mlapp.serving.process.monitoring import _Closer
from mlapp.store import Store
from tests.unit.monitoring.service import LOANS, Service, rows

pytest.importorskip("duckdb", reason="needs mlapp-kit[monitor]")

DAY = 86400.0
LATER = 2 * ABANDONED
"""Seconds after which an attempt without a sign is one of a process that was killed."""
IMPORTS = "from mlapp import App"
APP = LOANS.replace(IMPORTS, f"import os\nimport signal\nfrom pathlib import Path\n\n{IMPORTS}").replace(
    "    random = np.random.default_rng(0)\n",
    "    with Path('trainings').open('a') as file:\n        file.write('1')\n"
    "    if 'LOANS_KILL' in os.environ:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
    "    if 'LOANS_FAIL' in os.environ:\n        raise OSError('postgresql://me:open-sesame@db/loans is away')\n"
    "    random = np.random.default_rng(0)\n",
)


class Killed(BaseException):
    """The process ends here."""


@dataclasses.dataclass
class Loans:
    """A project whose version 1 is in alarm: every truth contradicts its prediction.

    Attributes:
        now: a time at which the window with the alarm has ended.
    """

    root: Path
    now: float

    def configure(self, retrain: str = "", promote: str = "") -> None:
        text = (
            f"monitor: {{log: all, window: 10s, quality: {{accuracy: -0.03}}, retrain: {{min_labels: 100, {retrain}}}"
        )
        (self.root / "mlapp.yaml").write_text(f"{text}, promote: {promote}}}" if promote else f"{text}}}")

    def run(self, later: float = 0.0) -> str | None:
        """`mlapp monitor run`, some seconds later; returns the new version."""
        return close_windows(self.project, self.now + later).trained

    @property
    def project(self) -> Project:
        return Project.find(self.root)

    @property
    def store(self) -> Store:
        return self.project.store

    @property
    def state(self) -> tuple[list[int], dict[str, int]]:
        """The versions and the aliases."""
        return self.store.list_numbers("loans"), self.store.aliases("loans")

    @property
    def trainings(self) -> int:
        """How often a training has begun."""
        file = self.root / "trainings"
        return len(file.read_text()) if file.exists() else 0


@pytest.fixture
def loans(service: Service, project: Callable[..., Path]) -> Loans:
    return record_wrong_predictions(service, project(APP))


def record_wrong_predictions(service: Service, root: Path) -> Loans:
    """A project of the served version, whose truths contradict its predictions."""
    predictions = service.predict(rows(300), "r")
    service.stop()
    place = open_place_for_inspection(service.project)
    truths = Truths(place, ColumnPrivacy({}, "loans"))
    truths.write_truths(
        truths.check_truths([{"id": f"r#{at}", "truth": 1 - value} for at, value in enumerate(predictions)])
    )
    sys.modules.pop("app", None)
    loans = Loans(root, service.now + 100)
    loans.configure()
    return loans


@pytest.mark.parametrize(
    ("killed_in", "trainings"),
    [
        ("mlapp.store.Store.put", 2),
        ("mlapp.monitoring.trainings.Trainings.record_result", 1),
        ("mlapp.store.Store.promote", 1),
        ("mlapp.monitoring.trainings.Trainings.record_decision", 1),
    ],
)
def test_a_run_that_is_killed_is_finished_by_a_later_one(
    killed_in: str, trainings: int, loans: Loans, monkeypatch: pytest.MonkeyPatch
) -> None:
    loans.configure(promote="{better: accuracy, on: [live], alias: production}")

    def kill(*arguments: Any, **options: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(killed_in, kill)
        with pytest.raises(Killed):
            loans.run()
    assert loans.run(later=10) is None, "its process can still work"
    assert loans.run(later=LATER) == "2"
    assert loans.state == ([1, 2], {"challenger": 2})  # it is not better on live data, where every truth is wrong
    assert loans.trainings == trainings
    assert loans.run(later=2 * LATER) is None
    assert loans.trainings == trainings, "at most once a day"


def test_a_killed_process_leaves_nothing_behind(loans: Loans, monkeypatch: pytest.MonkeyPatch) -> None:
    child = os.fork()
    if child == 0:
        os.environ["LOANS_KILL"] = "1"  # while the data is read
        loans.run()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (loans.state, loans.trainings) == (([1], {}), 1)
    assert loans.run(later=LATER) == "2"
    assert loans.state == ([1, 2], {"challenger": 2})


def test_two_runs_at_once_train_once(loans: Loans) -> None:
    loans.configure("at_most: 3/day")
    projects = [loans.project, loans.project]
    assert all(project.app for project in projects)  # imported before the threads
    with ThreadPoolExecutor(2) as threads:
        closed = list(threads.map(lambda project: close_windows(project, loans.now).trained, projects))
    assert sorted(closed, key=str) == ["2", None]
    assert loans.trainings == 1


def test_a_training_that_fails_is_reported_and_tried_again(
    mlapp: Callable[..., Any], loans: Loans, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LOANS_FAIL", "1")
    assert loans.run() is None
    assert "loans could not be trained again" in caplog.text
    assert "@db/loans is away" in caplog.text
    output = mlapp("monitor").err
    assert "The training that began at " in output
    assert "postgresql://me:***@db/loans is away" in output
    assert loans.run(later=60) is None
    assert loans.trainings == 1, "not at once"
    monkeypatch.delenv("LOANS_FAIL")
    assert loans.run(later=LATER) == "2"
    assert loans.trainings == 2


def test_a_version_is_trained_again_as_it_was_trained(
    mlapp: Callable[..., Any], service: Service, project: Callable[..., Path]
) -> None:
    mlapp("train", "-p", "C=0.5", "-p", "rows=2000")
    service.serve("2")
    loans = record_wrong_predictions(service, project(APP))
    mlapp("train", "-p", "C=0.1")
    assert loans.run() == "4"
    assert loans.store.manifest("loans", 4).parameters == loans.store.manifest("loans", 2).parameters
    assert loans.store.manifest("loans", 4).parameters["C"] == 0.5


def test_parameters_that_the_code_no_longer_has_are_named(loans: Loans, caplog: pytest.LogCaptureFixture) -> None:
    (loans.root / "app.py").write_text(
        APP.replace("C: float = 1.0", "strength: float = 1.0").replace("C=C", "C=strength")
    )
    assert loans.run() is None
    assert "'C'" in caplog.text


def test_enough_labels_are_counted_exactly_also_those_of_earlier_windows(loans: Loans) -> None:
    has_enough = retraining._has_enough_labels
    place, project = open_place_for_inspection(loans.project), loans.project
    assert has_enough(project, place, "1", [], 300, loans.now)
    assert not has_enough(project, place, "1", [], 301, loans.now)


@pytest.mark.parametrize("jump", [-365 * DAY, -3 * DAY, 3 * DAY, 365 * DAY])
def test_a_clock_that_jumps_blocks_no_training_and_permits_one(jump: float, loans: Loans) -> None:
    trainings, now = Trainings(open_place_for_inspection(loans.project)), loans.now

    def train(at: float) -> bool:
        attempt = trainings.find_due_attempt("1/day", "1", at)
        if attempt is None or not trainings.claim_attempt(attempt):
            return False
        trainings.record_result(attempt, Result(at, version=2))
        trainings.record_decision(attempt)
        return True

    assert train(now)
    assert not train(now + 60)
    assert not train(now + DAY - 60), "a day, not a date"
    assert train(now + jump)
    assert not train(now + jump + 60)
    assert not train(now + 120), "the clock is right again"
    assert train(now + DAY + 60)


def test_attempts_end(loans: Loans) -> None:
    trainings, now = Trainings(open_place_for_inspection(loans.project)), loans.now
    begun: list[Attempt] = []
    for at in range(60):
        attempt = trainings.find_due_attempt("1/day", "1", now + at * LATER)
        if attempt is not None and trainings.claim_attempt(attempt):
            begun.append(attempt)
            trainings.record_result(attempt, Result(attempt.at, failure="no data"))
    assert [attempt.attempt for attempt in begun[:ATTEMPTS]] == [1, 2, 3]
    assert begun[ATTEMPTS].at - begun[0].at >= DAY
    assert trainings.find_due_attempt("1/day", "2", begun[-1].at + LATER) is None


def test_a_challenger_is_compared_with_the_version_that_it_would_replace(
    loans: Loans, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While a training runs, the operator promotes another version."""
    loans.configure(promote="{better: accuracy, on: [test], alias: production}")
    caplog.set_level(logging.INFO, "mlapp.monitoring")
    store, put = loans.store, Store.put

    def put_after_another(self: Store, trained: Any, **options: Any) -> Any:
        put(self, dataclasses.replace(trained, metrics={"test": {"accuracy": 0.999}}))
        self.promote("loans", 2, "production")
        return put(self, trained, **options)

    monkeypatch.setattr(Store, "put", put_after_another)
    assert loans.run() == "3"
    assert store.aliases("loans") == {"production": 2, "challenger": 3}
    assert "version 3 is not better than version 2" in caplog.text


def test_a_challenger_that_was_deleted_is_not_promoted(
    loans: Loans, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loans.configure(promote="{better: accuracy, on: [test], alias: production}")
    with monkeypatch.context() as patched:
        patched.setattr(Trainings, "record_decision", lambda *arguments: None)
        patched.setattr(retraining, "promote_challenger_if_better", lambda *arguments: False)
        assert loans.run() == "2"
    loans.store.promote("loans", 1, "challenger")
    loans.store.delete("loans", 2)
    assert loans.run(later=LATER) == "2"
    assert loans.state == ([1], {"challenger": 1})
    assert "version 2 was deleted" in caplog.text
    assert loans.run(later=2 * LATER) is None


def test_a_store_that_cannot_be_reached_delays_a_promotion(loans: Loans, monkeypatch: pytest.MonkeyPatch) -> None:
    loans.configure(promote="{better: accuracy, on: [test], alias: production}")
    manifest = Store.manifest

    def fail(self: Store, app: str, version: int) -> Any:
        if self.list_numbers(app) == [1, 2]:  # the training is over
            raise StoreError("The bucket cannot be reached.", "Try again.")
        return manifest(self, app, version)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "manifest", fail)
        assert loans.run() == "2"
        assert loans.run(later=LATER) is None
    assert Store.manifest is manifest
    loans.store.release("loans", 2)  # as far as a run came that was killed between two steps of the promotion
    assert loans.run(later=2 * LATER) == "2"
    assert loans.trainings == 1
    assert loans.state == ([1, 2], {"challenger": 2, "production": 2})


def test_a_training_on_flyte_follows_one_run_however_often_its_answer_is_lost(
    loans: Loans, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loans.configure("run: flyte")
    commands: list[list[str]] = []

    def train(
        command: list[str], *, env: dict[str, str], cwd: Path, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        assert (env["MLAPP_APP"], cwd) == (str(loans.root / "app.py"), loans.root)
        parameters = json.loads(Path(command[command.index("--params") + 1]).read_text())
        assert (parameters["C"], parameters["rows"]) == (1.0, 3000)
        if len(commands) == 1:
            return subprocess.CompletedProcess(
                command, 1, "", "registered\nError: Flyte does not answer.\nTry again.\n"
            )
        other = loans.project.open_store(env["MLAPP_STORE"])
        other.import_version(loans.store.get("loans", 1))
        return subprocess.CompletedProcess(command, 0, "{}", "")

    monkeypatch.setattr("mlapp.monitoring.retraining.subprocess.run", train)
    assert loans.run() is None
    assert "The training on Flyte failed: Flyte does not answer." in caplog.text
    assert loans.run(later=LATER) == "2"
    assert [command[:-1] for command in commands] == [commands[0][:-1]] * 2
    run = commands[0][commands[0].index("--run-id") + 1]
    origin = loans.store.manifest("loans", 2).origin
    assert (origin["engine"], origin["held"], origin["retrain"]) == ("flyte", "retrain", run)
    assert loans.store.resolve("loans") == 1


def test_the_server_does_not_wait_for_a_run_that_trains(loans: Loans, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: Queue[int] = Queue()
    is_trained = Event()

    def run(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        begun.put(1)
        if begun.qsize() == 1:
            is_trained.wait(100)
        return subprocess.CompletedProcess([], 0, "", "")

    monkeypatch.setattr("mlapp.serving.process.monitoring.subprocess.run", run)
    monkeypatch.setattr("mlapp.serving.process.monitoring.PATIENCE", 0.05)
    closer = _Closer(loans.project, open_place_for_inspection(loans.project), None)
    training = Thread(target=closer._run_monitor)
    training.start()
    while not begun.qsize():
        time.sleep(0.001)
    closer._run_monitor()  # of a later window
    assert (begun.qsize(), training.is_alive()) == (2, True)
    is_trained.set()
    training.join()
    closer._run_monitor()
    assert begun.qsize() == 3
