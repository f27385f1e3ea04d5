"""What goes wrong on a real Flyte says why: errors of the user, retries, pods that wait, images, memory, recovery.

The same settings as test_flyte.py. Each test needs a registration, which all share, and one or two short runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlapp.errors import MlappError, UsageError
from mlapp.flyte.engine import FlytekitEngine
from mlapp.flyte.errors import RunFailedError
from mlapp.flyte.interface import Registration, Run, Trials
from mlapp.project import Project
from tests.cluster.flyte.settings import configure_engine

APP = """
import datetime
from typing import Annotated

import pandas as pd
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlapp import App, Resources, Search

app = App("faults", target="target")


@app.data_reader
def read(lacks: str = "", when: datetime.datetime | None = None) -> pd.DataFrame:
    table = load_iris(as_frame=True).frame
    if when is not None and when.tzinfo is not None:
        raise ValueError(f"an aware time: {when!r}")
    return table[lacks] if lacks else table


@app.model
def build(C: Annotated[float, Search(0.1, 10)] = 1.0) -> LogisticRegression:
    return LogisticRegression(C=C, max_iter=500)


@app.trainer(retries=1, resources=Resources(cpu=RESOURCES, memory="500Mi"))
def fit(model, features, target, fail: str = ""):
    if fail == "memory":
        held = [bytes(100_000_000) + b"x" for _ in range(100)]
    if fail:
        raise ValueError(f"bad luck: {fail}")
    return model.fit(features, target)
"""


@pytest.fixture
def make_engine(project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., FlytekitEngine]:
    def make(resources: str = "1", **files: str) -> FlytekitEngine:
        configure_engine(monkeypatch)
        root = project(APP.replace("RESOURCES", resources), requirements__txt="scikit-learn\n", **files)
        return FlytekitEngine(Project.find(root))

    return make


def register(engine: FlytekitEngine) -> Registration:
    return engine.register_project(engine.build_image(print), print)


def test_a_failed_reader_shows_the_whole_traceback_and_the_run_recovers(
    make_engine: Callable[..., FlytekitEngine],
) -> None:
    engine = make_engine()
    started = engine.start_run("train", {"lacks": "no such column of the table"}, register(engine))
    with pytest.raises(RunFailedError) as failed:
        engine.follow_run(started.id, print)
    assert "no such column of the table" in failed.value.what
    assert "in read" in str(failed.value.trace)
    again = engine.recover(started.id)
    with pytest.raises(RunFailedError, match="no such column"):
        engine.follow_run(again.id, print)
    with pytest.raises(UsageError, match="is over already"):
        engine.abort_run(started.id, "enough")


def test_a_trainer_is_retried_for_its_own_error_and_the_message_has_no_wrapper(
    make_engine: Callable[..., FlytekitEngine],
) -> None:
    from flytekit.models.core.identifier import NodeExecutionIdentifier

    from mlapp.flyte.run_stages import execution_id
    from mlapp.flyte.task_executions import list_task_executions

    engine = make_engine()
    started = engine.start_run("train", {"fail": "wrong"}, register(engine))
    with pytest.raises(RunFailedError, match="bad luck: wrong") as failed:
        engine.follow_run(started.id, print)
    assert "FlyteRecoverableException" not in f"{failed.value.what} {failed.value.trace}"
    node = next(step.node for step in engine.read_run(started.id).steps if step.phase == "failed")
    place = NodeExecutionIdentifier(node, execution_id(engine.connection, started.id))
    assert len(list_task_executions(engine.connection, place)) == 2


def test_a_task_without_memory_says_so(make_engine: Callable[..., FlytekitEngine]) -> None:
    engine = make_engine()
    started = engine.start_run("train", {"fail": "memory"}, register(engine))
    with pytest.raises(RunFailedError, match="ran out of memory|was killed"):
        engine.follow_run(started.id, print)


def test_a_pod_that_fits_no_node_says_why(make_engine: Callable[..., FlytekitEngine]) -> None:
    engine = make_engine(resources="4000")
    started = engine.start_run("train", {}, register(engine))
    reasons: list[str] = []
    deadline = time.monotonic() + 180

    def stop_when_known(run: Run) -> None:
        reasons.extend(step.waits_for for step in run.steps if step.waits_for)
        if any("nsufficient cpu" in reason for reason in reasons) or time.monotonic() > deadline:
            engine.abort_run(started.id, "known")

    with pytest.raises(MlappError):  # aborted; or Flyte refuses more than its limit at once, and says that
        engine.follow_run(started.id, stop_when_known)
    assert reasons or "cpu" in str(engine.read_run(started.id).error)


def test_an_image_that_cannot_be_pulled_ends_the_wait(
    make_engine: Callable[..., FlytekitEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    registration = engine.register_project("registry.invalid/no/such/image:1", print)
    started = engine.start_run("train", {}, registration)
    with pytest.raises(RunFailedError, match="cannot pull the image"):
        engine.follow_run(started.id, print)
    engine.abort_run(started.id, "known")


def test_a_naive_time_stays_naive_and_trials_share_their_data(make_engine: Callable[..., FlytekitEngine]) -> None:
    engine = make_engine()
    registration = register(engine)
    trials = Trials([{"model.C": 0.5}, {"trainer.fail": "wrong"}], folds=2, seed=0, at_once=2)
    first = engine.start_run("tune", {"when": "2025-01-01"}, registration, trials=trials)
    engine.follow_run(first.id, print)
    good, failed = engine.fetch_results(first.id)
    assert good is not None
    assert good.metrics
    assert failed is not None
    assert failed.error is not None
    assert "bad luck" in failed.error[0]
    final = engine.start_run("train", {"C": 0.5}, registration, data_of=first.id)
    engine.follow_run(final.id, print)
    assert "read" not in {step.name for step in engine.read_run(final.id).steps}


def test_what_does_not_exist_is_reported(
    make_engine: Callable[..., FlytekitEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    with pytest.raises(UsageError, match="There is no run 'nosuch'"):
        engine.list_logs("nosuch")
    monkeypatch.setenv("MLAPP_FLYTE__PROJECT", "no-such-project")
    with pytest.raises(MlappError, match="no-such-project"):
        FlytekitEngine(Project.find(engine.project.root)).list_runs()


@pytest.mark.skipif("MLAPP_TEST_KUBECONFIG" not in os.environ, reason="MLAPP_TEST_KUBECONFIG names no cluster")
def test_logs_come_from_the_pods(make_engine: Callable[..., FlytekitEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", os.environ["MLAPP_TEST_KUBECONFIG"])
    engine = make_engine()
    started = engine.start_run("train", {"fail": "wrong"}, register(engine))
    with pytest.raises(RunFailedError):
        engine.follow_run(started.id, print)
    assert any("bad luck" in text for _, text in engine.read_logs(started.id))
