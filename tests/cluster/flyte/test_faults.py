"""Causes of faults on a real Flyte: errors of the user, retries, pods that wait, images, memory, recovery."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlapp.errors import MlappError, UsageError
from mlapp.flyte.engine import FlytekitEngine
from mlapp.flyte.errors import FlyteError, RunFailedError
from mlapp.flyte.interface import Run, Trials
from mlapp.project import Project
from tests.cluster.flyte.conftest import Cluster, follow, register

APP = """
import datetime
import time
from typing import Annotated

import pandas as pd
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlapp import App, Resources, Search

app = App("NAME", target="target")


@app.data_reader
def read(lacks: str = "", when: datetime.datetime | None = None) -> pd.DataFrame:
    table = load_iris(as_frame=True).frame
    if when is not None and when.tzinfo is not None:
        raise ValueError(f"an aware time: {when!r}")
    return table[lacks] if lacks else table


@app.model
def build(C: Annotated[float, Search(0.1, 10)] = 1.0) -> LogisticRegression:
    return LogisticRegression(C=C, max_iter=500)


@app.trainer(retries=1, resources=Resources(cpu=1, memory="1Gi"))
def fit(model, features, target, fail: str = ""):
    held = []
    while fail == "memory":
        held.append(b"x" * 50_000_000)
        time.sleep(0.02)
    while fail == "time":
        time.sleep(1)
    if fail:
        raise ValueError(f"bad luck: {fail}")
    return model.fit(features, target)
"""
CACHED = """
import pandas as pd
from sklearn.linear_model import LogisticRegression
from mlapp import App

app = App("NAME", target="y")
app.model(LogisticRegression)


@app.data_reader(cache=True)
def read() -> pd.DataFrame:
    return pd.read_csv("rows.csv")
"""
WORKFLOWS = """
from app import app
from mlapp.flyte import train_workflow

train = train_workflow(app)
"""
NEEDS_PODS = pytest.mark.skipif("MLAPP_TEST_KUBECONFIG" not in os.environ, reason="MLAPP_TEST_KUBECONFIG names none")


def test_a_failed_reader_shows_the_whole_traceback_and_the_run_recovers(cluster: Cluster) -> None:
    engine = cluster.open_project(APP)
    started = engine.start_run("train", {"lacks": "no such column of the table"}, register(engine))
    with pytest.raises(RunFailedError) as failed:
        follow(engine, started.id)
    assert "no such column of the table" in failed.value.what
    assert "in read" in failed.value.trace
    again = engine.recover(started.id)
    with pytest.raises(RunFailedError, match="no such column"):
        follow(engine, again.id)
    with pytest.raises(UsageError, match="has already ended: it failed"):
        engine.abort_run(started.id, "enough")


def test_a_trainer_is_retried_for_its_own_error_and_the_message_has_no_wrapper(cluster: Cluster) -> None:
    from flytekit.models.core.identifier import NodeExecutionIdentifier

    from mlapp.flyte.run_stages import make_run_execution_id
    from mlapp.flyte.task_executions import list_task_executions

    engine = cluster.open_project(APP)
    started = engine.start_run("train", {"fail": "wrong"}, register(engine))
    with pytest.raises(RunFailedError, match="bad luck: wrong") as failed:
        follow(engine, started.id)
    assert "FlyteRecoverableException" not in f"{failed.value.what} {failed.value.trace}"
    node = next(step.node for step in engine.read_run(started.id).steps if step.phase == "failed")
    place = NodeExecutionIdentifier(node, make_run_execution_id(engine.connection, started.id))
    assert [execution.id.retry_attempt for execution in list_task_executions(engine.connection, place)] == [0, 1]
    assert any(text for _, text in engine.read_logs(started.id)) or "MLAPP_TEST_KUBECONFIG" not in os.environ


def test_a_task_above_its_memory_says_so(cluster: Cluster) -> None:
    engine = cluster.open_project(APP)
    started = engine.start_run("train", {"fail": "memory"}, register(engine))
    with pytest.raises(RunFailedError, match="ran out of memory|was killed") as failed:
        follow(engine, started.id)
    assert "@app.trainer(resources=Resources(memory=" in failed.value.todo


def test_a_task_above_its_timeout_says_so(cluster: Cluster) -> None:
    engine = cluster.open_project(APP.replace("retries=1", "timeout=30"))
    started = engine.start_run("train", {"fail": "time"}, register(engine))
    with pytest.raises(RunFailedError, match="Task train took longer than its timeout") as failed:
        follow(engine, started.id)
    assert "@app.trainer(timeout=" in failed.value.todo


def test_a_task_above_the_platform_s_limit_is_refused_before_it_runs(cluster: Cluster) -> None:
    engine = cluster.open_project(APP.replace("cpu=1", "cpu=4000"))
    refused: list[FlyteError] = []
    try:
        registration = register(engine)
    except FlyteError as error:
        refused.append(error)
    if refused:
        assert "Task train asks for cpu 4000" in refused[0].what
    else:  # a Flyte without limits: no node has so many
        wait_for_reason(engine, engine.start_run("train", {}, registration).id, "nsufficient cpu")


def test_a_pod_that_fits_no_node_says_why(cluster: Cluster) -> None:
    engine = cluster.open_project(APP.replace("cpu=1", "cpu=1, gpu=1"))
    started = engine.start_run("train", {}, register(engine))
    wait_for_reason(engine, started.id, "nsufficient nvidia.com/gpu")


def wait_for_reason(engine: FlytekitEngine, run: str, reason: str) -> None:
    """Follow a run until a task waits for this reason, and stop it."""
    messages: list[str] = []

    def stop_when_known(current: Run) -> None:
        is_known = any(reason in text for text in messages)
        messages.extend(step.waits_for for step in current.steps if step.waits_for)
        if any(reason in text for text in messages) and not is_known:
            engine.abort_run(run, "the reason is known")

    stopped: list[RunFailedError] = []
    try:
        follow(engine, run, stop_when_known)
    except RunFailedError as error:
        stopped.append(error)
    if not stopped:
        pytest.skip("the cluster has what the task asks for, so that nothing waits")
    assert "the reason is known" in stopped[0].what, messages


def test_an_image_that_cannot_be_pulled_ends_the_wait(cluster: Cluster) -> None:
    engine = cluster.open_project(APP)
    registration = engine.register_project("registry.invalid/no/such/image:1", print)
    started = engine.start_run("train", {}, registration)
    with pytest.raises(RunFailedError, match="cannot pull the image") as failed:
        follow(engine, started.id)
    assert "registry.invalid/no/such/image:1" in failed.value.what


def test_a_naive_time_stays_naive_and_trials_share_their_data(cluster: Cluster) -> None:
    engine = cluster.open_project(APP)
    registration = register(engine)
    trials = Trials([{"model.C": 0.5}, {"trainer.fail": "wrong"}], folds=2, seed=0, at_once=2)
    first = engine.start_run("tune", {"when": "2025-01-01"}, registration, trials=trials)
    follow(engine, first.id)
    good, failed = engine.fetch_trial_results(first.id)
    assert good is not None
    assert good.metrics
    assert failed is not None
    assert failed.error is not None
    assert "bad luck" in failed.error[0]
    final = engine.start_run("train", {"C": 0.5}, registration, data_of=first.id)
    follow(engine, final.id)
    assert "read" not in {step.name for step in engine.read_run(final.id).steps}


def test_a_cached_reader_reads_again_when_its_data_file_changes(cluster: Cluster) -> None:
    rows = "x,y\n" + "".join(f"{at},{at % 2}\n" for at in range(40))
    engine = cluster.open_project(CACHED, rows__csv=rows)

    def train() -> tuple[int, bool]:
        started = engine.start_run("train", {}, register(engine))
        read = follow(engine, started.id).steps[0]
        return engine.fetch_model(started.id).manifest.data.rows, read.cached

    assert train() == (40, False)
    assert train() == (40, True)
    (engine.project.root / "rows.csv").write_text(rows + "50,1\n")
    engine = FlytekitEngine(Project.find(engine.project.root))
    assert train() == (41, False)


def test_a_schedule_is_activated_in_the_version_that_was_deployed_last(cluster: Cluster) -> None:
    engine = cluster.open_project(f"{APP}\napp.schedule('yearly', cron='0 0 1 1 *')\n")
    first = register(engine)
    engine.deploy_schedules(first, print)
    assert engine.deactivate_schedules() == ["yearly"]
    (engine.project.root / "note.txt").write_text("another version")
    second = register(engine)
    engine.deploy_schedules(second, print)
    engine.deploy_schedules(first, print)
    assert first.version != second.version
    assert engine.active_version() is None, "one that was switched off stays off"
    assert engine.switch_schedule("yearly", active=True).version == first.version


def test_pyflyte_registers_and_runs_the_workflow_of_a_module(cluster: Cluster) -> None:
    engine = cluster.open_project(APP, workflows__py=WORKFLOWS)
    image, settings = engine.build_image(print), engine.connection.settings
    place = ["--project", settings.project, "--domain", settings.domain, "--image", image]

    def pyflyte(*arguments: str) -> None:
        program = Path(sys.executable).with_name("pyflyte")
        done = subprocess.run([program, *arguments], cwd=engine.project.root, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    pyflyte("register", *place, "--destination-dir", ".", "--version", "by-hand", "workflows.py")
    pyflyte("run", "--remote", "--copy", "all", *place, "workflows.py", "train", "--c", "0.5")
    (run,) = engine.list_runs()
    assert follow(engine, run.id).phase == "succeeded"


def test_what_does_not_exist_is_reported(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = cluster.open_project(APP)
    with pytest.raises(UsageError, match="There is no run 'nosuch'"):
        engine.list_logs("nosuch")
    with pytest.raises(UsageError, match="There is no run 'nosuch'"):
        engine.abort_run("nosuch", "enough")
    monkeypatch.setenv("MLAPP_FLYTE__PROJECT", "no-such-project")
    with pytest.raises(MlappError, match="no-such-project"):
        FlytekitEngine(Project.find(engine.project.root)).list_runs()


@NEEDS_PODS
def test_logs_and_the_reason_of_a_kill_come_from_the_pods(cluster: Cluster) -> None:
    engine = cluster.open_project(APP.replace("retries=1, ", ""))
    registration = register(engine)
    started = engine.start_run("train", {"fail": "wrong"}, registration)
    with pytest.raises(RunFailedError):
        follow(engine, started.id)
    assert any("bad luck" in text for _, text in engine.read_logs(started.id))
    trials = Trials([{"model.C": 0.5}, {"trainer.fail": "memory"}], folds=2, seed=0, at_once=2)
    search = engine.start_run("tune", {}, registration, trials=trials)
    follow(engine, search.id)
    assert engine.fetch_trial_results(search.id)[1] is None
    assert engine.list_run_kill_reasons(search.id) == ["OOMKilled"]
