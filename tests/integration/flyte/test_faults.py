"""Causes of faults in the cluster: pods that fit no node, images, memory, secrets, limits of the platform."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flyteidl.core import literals_pb2
from flyteidl.core.tasks_pb2 import Resources

from mlapp.flyte import app_source, run_outputs, run_stages, runs
from mlapp.flyte.engine import FlytekitEngine
from mlapp.flyte.errors import FlyteError, RunFailedError
from mlapp.flyte.interface import Registration, Run, Trials
from mlapp.project import Project
from tests.conftest import FLOWERS
from tests.integration.flyte.flyteadmin import Flyteadmin
from tests.integration.flyte.propeller import WorkflowPhase
from tests.integration.flyte.runs import end_run


@pytest.fixture(autouse=True)
def asks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_stages, "WAITS_AFTER", 0.0)


def follow(engine: FlytekitEngine, run: str, tell: Callable[[Run], Any] = lambda run: None) -> Run:
    return runs.follow_run(engine.connection, run, tell, pause=0.1)


def test_a_pod_that_fits_no_node_says_why_and_starts_when_there_is_room(
    engine: FlytekitEngine, admin: Flyteadmin, registered: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    capacity = admin.propeller.nodes.capacity
    monkeypatch.setitem(capacity, "cpu", 0.5)
    started = engine.start_run("train", {"limit": 90}, registered)

    messages: list[tuple[str, str, str]] = []

    def see(run: Run) -> None:
        messages.extend((step.name, step.phase, step.waits_for) for step in run.steps if step.waits_for)
        if messages:
            capacity["cpu"] = 8.0

    assert follow(engine, started.id, see).phase == "succeeded"
    assert messages[0][:2] == ("read", "running")
    assert messages[0][2].startswith("0/1 nodes are available: 1 Insufficient cpu.")


@pytest.mark.parametrize("grace", [180.0, 0.0], ids=["in the grace period", "after it"])
def test_an_image_that_cannot_be_pulled_ends_the_wait(
    engine: FlytekitEngine, admin: Flyteadmin, grace: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin.propeller.nodes, "pull_grace", grace)
    registration = engine.register_project("registry.invalid/no/such/image:1", print)
    started = engine.start_run("train", {"limit": 81}, registration)
    with pytest.raises(RunFailedError, match="Task read: the cluster cannot pull the image") as raised:
        follow(engine, started.id)
    assert "registry.invalid/no/such/image:1" in raised.value.what
    assert "Check that it is pushed" in raised.value.todo
    assert (f"mlapp runs abort {started.id}" in raised.value.todo) == bool(grace), "a run that failed needs no abort"
    if grace:
        engine.abort_run(started.id, "no image")
    else:
        with pytest.raises(RunFailedError, match="Task read: the cluster cannot pull the image"):
            follow(engine, started.id)  # a run that has ended gives the same reason


def test_a_task_above_its_memory_says_what_to_set_and_its_pods_have_the_logs(
    engine: FlytekitEngine, admin: Flyteadmin, registered: Registration, cluster: None, mlapp: Callable[..., Any]
) -> None:
    started = engine.start_run("train", {"fail": "memory", "limit": 120}, registered)
    with pytest.raises(RunFailedError, match="Task train ran out of memory") as raised:
        follow(engine, started.id)
    assert "@app.trainer(resources=Resources(memory=" in raised.value.todo
    execution = admin.executions[started.id]
    assert execution.attempts["train"] == 2, "Flyte retries it like an error of the user's"
    assert engine.list_run_kill_reasons(started.id) == ["OOMKilled"]

    for task in (task for tasks in execution.tasks.values() for task in tasks):
        del task.closure.logs[:]  # a Flyte without links to logs
    admin.propeller.nodes.pods[-1].log.write_text("Epoch 1\nEpoch 2\n")
    ran = mlapp("runs", "logs", started.id)
    assert (ran.code, ran.out.endswith("Epoch 1\nEpoch 2\n")) == (0, True)
    assert "train:" in ran.err
    assert json.loads(mlapp("runs", "logs", started.id, "--json").out)[-1]["text"] == "Epoch 1\nEpoch 2\n"


def test_a_secret_is_a_variable_of_the_stage(
    engine: FlytekitEngine, admin: Flyteadmin, registered: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(admin.propeller.secrets, "database/password", "open sesame")
    started = engine.start_run("train", {"fail": "secret", "limit": 120}, registered)
    with pytest.raises(RunFailedError, match="bad luck: open sesame"):
        follow(engine, started.id)


def test_a_task_above_the_platform_s_limit_is_named_before_anything_runs(
    project: Callable[..., Path], admin: Flyteadmin
) -> None:
    text = FLOWERS.replace("@app.model", "@app.model(resources=Resources(memory='8Gi'))").replace(
        "import App", "import App, Resources"
    )
    engine = FlytekitEngine(Project.find(project(text, mlapp__yaml="flyte: {image: registry.example/flowers:1}")))
    with pytest.raises(FlyteError, match="Task train asks for memory 8Gi, but Flyte's limit for a task is 1Gi"):
        engine.register_project(engine.build_image(print), print)


def test_more_data_makes_a_new_version_because_tasks_get_more_memory(
    project: Callable[..., Path], admin: Flyteadmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(admin.limits, "memory", "64Gi")
    engine = FlytekitEngine(Project.find(project(FLOWERS, mlapp__yaml="flyte: {image: registry.example/flowers:1}")))
    before = engine.register_project(engine.build_image(print), print)
    monkeypatch.setattr(app_source, "read_app_training_size", lambda project: 10**8)
    grown = FlytekitEngine(engine.project)
    after = grown.register_project(engine.build_image(print), print)
    assert after.created
    assert before.version != after.version
    (container,) = {
        entry.value
        for (_, version), task in admin.propeller.tasks.items()
        if version == after.version
        for entry in task.template.container.resources.requests
        if entry.name == Resources.MEMORY
    }
    assert container == "8Gi"


def test_outputs_that_flyte_signs_are_fetched_by_their_url(
    engine: FlytekitEngine, admin: Flyteadmin, registered: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = end_run(admin, registered, "signed", WorkflowPhase.SUCCEEDED)
    execution.outputs["metrics"] = literals_pb2.Literal(
        scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(string_value="here"))
    )
    monkeypatch.setattr(admin, "signs_outputs", True)
    metrics = run_outputs.fetch_run_output(engine.connection, "signed", "metrics")
    assert metrics.scalar.primitive.string_value == "here"


def test_a_search_names_the_logs_of_each_trial_and_why_none_starts(
    engine: FlytekitEngine,
    admin: Flyteadmin,
    registered: Registration,
    cluster: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Flyte has one task execution for all trials, with their links and phases, and with no reason."""
    monkeypatch.setitem(admin.propeller.nodes.pending, "trial", "Unschedulable:0/1 nodes are available: 1 cordoned.")
    trials = Trials([{"model.C": 0.1}, {"trainer.fail": "wrong"}], 2, 0, at_once=2)
    started = engine.start_run("tune", {"limit": 120}, registered, trials=trials)
    messages: list[str] = []

    def see(run: Run) -> None:
        waiting = [step.waits_for for step in run.steps if step.name == "trial" and step.waits_for]
        if waiting and "cordoned" in str(waiting[0]):
            messages.append(str(waiting[0]))
            admin.propeller.nodes.pending.pop("trial", None)

    follow(engine, started.id, see)
    assert messages[0] == "none of its 2 runs has started: 0/1 nodes are available: 1 cordoned."
    links = [link for step, link in engine.list_logs(started.id) if step == "trial"]
    assert [link.rpartition("/")[2] for link in sorted(links)] == ["0", "1"]
