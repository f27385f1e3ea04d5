"""`mlapp train --remote` against a small Flyte that runs what is registered, each task in a process of its own."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flyteidl.core.execution_pb2 import NodeExecution

from mlapp import training
from mlapp.errors import StoreError, UsageError
from mlapp.flyte import runs
from mlapp.flyte.engine import FlytekitEngine
from mlapp.flyte.errors import RunFailedError
from mlapp.flyte.interface import Registration, Run
from mlapp.project import Project
from tests.integration.flyte.conftest import CONFIG
from tests.integration.flyte.flyteadmin import Flyteadmin
from tests.integration.flyte.propeller import WorkflowPhase, new_process
from tests.integration.flyte.runs import end_run

REGISTERING = [
    "GetLaunchPlan",  # is it there already?
    "CreateUploadLocation",
    *["CreateTask"] * 4,
    "CreateWorkflow",
    "CreateTask",
    "CreateWorkflow",
    *["CreateTask"] * 2,
    "CreateWorkflow",
    *["CreateLaunchPlan"] * 3,
]
SCHEDULING = [
    "ListActiveLaunchPlans",
    "GetNamedEntity",
    "CreateLaunchPlan",
    "UpdateNamedEntity",
    "UpdateLaunchPlan",
]


def test_registering_is_a_few_calls_and_again_one(root: Path, configured: Path, tmp_path: Path) -> None:
    with Flyteadmin(tmp_path / "flyte").serving() as admin:  # one that knows nothing of the app
        configured.write_text(CONFIG.format(address=admin.address))
        engine = FlytekitEngine(Project.find(root))
        assert engine.source.app.name == "flowers"
        assert engine.connection.client  # what both import does not count
        clock = time.process_time()
        first = engine.register_project(engine.build_image(print), print)
        assert time.process_time() - clock < 2
        assert admin.methods() == REGISTERING
        assert first.created[-1] == "flowers.train"
        engine.deploy_schedules(first, print)
        assert admin.methods(len(REGISTERING)) == SCHEDULING
        assert len(REGISTERING + SCHEDULING) <= 20

        before, clock = len(admin.calls), time.process_time()
        again = engine.register_project(engine.build_image(print), print)
        assert time.process_time() - clock < 2
        assert (again.version, again.created) == (first.version, ())
        engine.deploy_schedules(again, print)
        assert admin.methods(before) == ["GetLaunchPlan", "ListActiveLaunchPlans"]


def test_a_run_gives_the_version_that_a_run_here_gives(
    engine: FlytekitEngine, admin: Flyteadmin, registered: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(admin.calls)
    seen: list[Run] = []
    with monkeypatch.context() as patch:
        patch.setattr(admin.propeller, "start", new_process)  # each task has one that has imported nothing yet
        started = engine.start_run("train", {"C": "0.1", "limit": 120}, registered)
        done = engine.follow_run(started.id, seen.append)

    times = [call.time for call in admin.calls[before + 1 :]]
    assert all(later - earlier >= 1.9 for earlier, later in itertools.pairwise(times))
    assert done.phase == "succeeded"
    assert [step.name for step in done.steps] == ["read", "split", "train", "evaluate", "save"]
    assert (
        started.url
        == f"http://{admin.address}/console/projects/flytesnacks/domains/development/executions/{started.id}"
    )

    deck = admin.root / "store" / "runs" / started.id / "evaluate-save" / "0" / "deck.html"
    assert "accuracy" in deck.read_text()

    version = engine.fetch_model(started.id)
    here = training.run(engine.project.app, {"C": 0.1, "limit": 120})
    assert version.manifest.metrics == here.metrics
    assert version.manifest.parameters == here.parameters
    assert version.manifest.schema == here.schema
    assert version.manifest.data.fingerprint == here.fingerprint
    assert version.manifest.origin["execution"] == started.id
    assert version.manifest.git is not None
    assert not version.manifest.git.dirty
    assert engine.fetch_model(started.id).version == version.version

    copy = end_run(admin, registered, "tampered", WorkflowPhase.SUCCEEDED)
    folder = Path(admin.executions[started.id].outputs["model"].scalar.blob.uri)
    (folder / "files" / "model.skops").write_bytes(b"another model")
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text().replace(started.id, "tampered"))
    copy.outputs = admin.executions[started.id].outputs
    with pytest.raises(StoreError, match="model.skops"):
        engine.fetch_model("tampered")

    predicting = engine.start_run("predict", {"limit": 10}, registered, version=version)
    runs.follow_run(engine.connection, predicting.id, seen.append, pause=0.2)
    there = engine.fetch_predictions(predicting.id)["prediction"].tolist()
    inputs = training.read_features(engine.project.app, {"limit": 10})
    assert there == here.estimator.predict(inputs).tolist()


def test_a_failed_task_shows_the_user_s_traceback(
    engine: FlytekitEngine, admin: Flyteadmin, registered: Registration
) -> None:
    started = engine.start_run("train", {"fail": "really", "limit": 120}, registered)
    with pytest.raises(RunFailedError) as raised:
        runs.follow_run(engine.connection, started.id, lambda run: None, pause=0.2)
    error = raised.value
    assert error.trace.splitlines()[0] == "Traceback (most recent call last):"
    assert "app.py" in error.trace.splitlines()[1]
    assert error.trace.splitlines()[-1] == "ValueError: bad luck: really"
    assert error.what.startswith("Task train failed: trainer 'fit' in app.py:")
    assert error.todo.startswith("Fix it at ")
    assert "in task" not in error.todo
    assert "USER:Recoverable" not in error.what + error.todo + error.trace
    assert admin.executions[started.id].attempts["train"] == 2, "retries=1: pyflyte-execute wrote RECOVERABLE"
    steps = {step.name: step.phase for step in engine.read_run(started.id).steps}
    assert (steps["split"], steps["train"]) == ("succeeded", "failed")
    with pytest.raises(RunFailedError):
        runs.follow_run(engine.connection, started.id, lambda run: None, pause=0)

    again = engine.start_run("train", {"fail": "again", "limit": 120}, registered)
    with pytest.raises(RunFailedError, match="bad luck: again"):
        runs.follow_run(engine.connection, again.id, lambda run: None, pause=0.2)
    assert engine.read_run(again.id).steps[0].cached


def test_a_wrong_parameter_starts_nothing(engine: FlytekitEngine, admin: Flyteadmin, registered: Registration) -> None:
    before = len(admin.calls)
    with pytest.raises(UsageError, match="No stage takes a parameter 'CC'"):
        engine.start_run("train", {"CC": 1}, registered)
    assert len(admin.calls) == before


def test_a_run_can_be_left_alone_listed_and_stopped(
    engine: FlytekitEngine, admin: Flyteadmin, registered: Registration, mlapp: Callable[..., Any]
) -> None:
    before = len(admin.executions)
    for _ in range(2):  # a script that repeats the command starts one run
        ran = mlapp("train", "--remote", "--no-wait", "--run-id", "nightly-7", "-p", "limit=50")
        assert ran.code == 0, ran.err
        run = ran.out.strip()  # the id alone, for a script
    assert (run, len(admin.executions)) == ("nightly-7", before + 1)
    assert "'No!' cannot be the ID of a run." in mlapp("train", "--remote", "--run-id", "No!").err
    assert f"Fetch the result later: mlapp runs wait {run}" in ran.err
    assert run in [run_entry["id"] for run_entry in json.loads(mlapp("runs", "list", "--json").out)]
    assert mlapp("runs", "abort", run, "--reason", "enough").code == 0
    with pytest.raises(RunFailedError, match="was aborted: enough"):
        runs.follow_run(engine.connection, run, lambda run: None, pause=0.2)
    assert "was aborted: enough" in mlapp("runs", "show", run).err
    with pytest.raises(UsageError, match="There is no run 'nothing'"):
        engine.read_run("nothing")


def test_a_run_that_is_over_cannot_be_stopped(engine: FlytekitEngine, registered: Registration) -> None:
    started = engine.start_run("train", {"fail": "over", "limit": 120}, registered)
    with pytest.raises(RunFailedError):
        runs.follow_run(engine.connection, started.id, lambda run: None, pause=0.2)
    with pytest.raises(UsageError, match=f"Run {started.id} has already ended: it failed"):
        engine.abort_run(started.id, "too late")


def test_a_failed_run_continues_where_it_failed(
    engine: FlytekitEngine, registered: Registration, root: Path, admin: Flyteadmin, mlapp: Callable[..., Any]
) -> None:
    started = engine.start_run("train", {"fail": "once", "limit": 120}, registered)
    with pytest.raises(RunFailedError):
        runs.follow_run(engine.connection, started.id, lambda run: None, pause=0.2)
    ran = mlapp("runs", "recover", started.id, "--no-wait")
    assert ran.code == 0, ran.err
    again = ran.out.strip()
    assert again != started.id
    with pytest.raises(RunFailedError, match="bad luck: once"):  # the parameter that makes it fail is the same
        runs.follow_run(engine.connection, again, lambda run: None, pause=0.2)
    assert [(step.name, step.phase) for step in engine.read_run(again).steps[:3]] == [
        ("read", "succeeded"),
        ("split", "succeeded"),
        ("train", "failed"),
    ]
    assert admin.executions[again].nodes["split"].closure.phase == NodeExecution.RECOVERED
