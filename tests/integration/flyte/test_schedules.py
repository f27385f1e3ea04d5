"""Schedules: bound to the scheduled time, switched by hand, and their models promoted only if they are better."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest
from flyteidl.core import literals_pb2

from mlapp import training
from mlapp.errors import ConfigError
from mlapp.flyte import promotion, runs
from mlapp.flyte.engine import FlytekitEngine
from mlapp.flyte.interface import Registration
from mlapp.project import Project
from mlapp.store import ModelVersion
from tests.integration.flyte.flyteadmin import Flyteadmin
from tests.integration.flyte.propeller import WorkflowPhase
from tests.integration.flyte.runs import end_run


def test_a_schedule_is_a_launch_plan(admin: Flyteadmin, registered: Registration) -> None:
    plan = admin.plans["flowers.train.nightly", registered.version]
    schedule = plan.spec.entity_metadata.schedule
    assert schedule.cron_schedule.schedule == "0 3 * * *"
    assert schedule.kickoff_time_input_arg == "now"
    fixed = plan.spec.fixed_inputs.literals
    assert fixed["c"].scalar.primitive.float_value == 0.5
    assert fixed["promote_if"].scalar.primitive.string_value == "accuracy"
    assert "now" not in fixed


def test_a_run_gets_the_time_it_was_scheduled_for_and_its_model_is_fetched_and_promoted(
    admin: Flyteadmin, engine: FlytekitEngine, registered: Registration, mlapp: Callable[..., Any]
) -> None:
    time = literals_pb2.Literal()
    time.scalar.primitive.datetime.FromJsonString("2026-01-31T03:00:00Z")
    run = admin.execute(admin.plans["flowers.train.nightly", registered.version], {"now": time}).name
    runs.follow_run(engine.connection, run, print, pause=0.2)
    ran = mlapp("schedule", "runs", "nightly", "--fetch", "--json")
    assert ran.code == 0, ran.err
    assert [run_entry["id"] for run_entry in json.loads(ran.out)] == [run]
    manifest = engine.fetch_model(run).manifest
    assert manifest.parameters["now"] == "2026-01-31T03:00:00+00:00"
    assert manifest.parameters["C"] == 0.5
    assert engine.project.store.aliases("flowers")["production"] == manifest.version


def test_a_run_of_other_code_leaves_the_schedules_to_the_version_that_was_deployed(
    engine: FlytekitEngine, registered: Registration, root: Path
) -> None:
    before = engine.active_version()
    (root / "note.txt").write_text("an experiment")
    try:
        assert engine.register_project(engine.build_image(print), print).created
    finally:
        (root / "note.txt").unlink()
    assert before is not None
    assert engine.active_version() == before


def test_it_is_switched_off_and_on(registered: Registration, mlapp: Callable[..., Any]) -> None:
    def state() -> str:
        (schedule,) = json.loads(mlapp("schedule", "list", "--json").out)
        assert (schedule["name"], schedule["when"], schedule["promote_if"]) == ("nightly", "0 3 * * *", "accuracy")
        return "active" if schedule["active"] else "inactive"

    assert state() == "active"
    assert mlapp("schedule", "deactivate", "nightly").code == 0
    assert state() == "inactive"
    assert mlapp("schedule", "activate", "nightly").code == 0
    assert state() == "active"
    ran = mlapp("schedule", "activate", "nightlyy")
    assert (ran.code, "Did you mean 'nightly'?" in ran.err) == (2, True)


def test_a_model_is_promoted_only_if_it_is_better(engine: FlytekitEngine, tmp_path: Path) -> None:
    store = engine.project.open_store(str(tmp_path))
    base = store.put(training.run(engine.project.app, {"limit": 100}))

    def arrive(execution: str, metric: str, **metrics: float) -> ModelVersion:
        manifest = msgspec.structs.replace(
            base.manifest, metrics={"train": {}, "test": metrics}, origin={"engine": "flyte", "execution": execution}
        )
        return promotion.save_and_promote(store, ModelVersion(manifest, base.files), metric)

    first = arrive("a", "accuracy", accuracy=0.8)
    assert store.aliases("flowers")["production"] == first.version
    arrive("b", "accuracy", accuracy=0.7)
    assert store.aliases("flowers")["production"] == first.version
    better = arrive("c", "accuracy", accuracy=0.9)
    assert store.aliases("flowers")["production"] == better.version
    assert arrive("c", "accuracy", accuracy=0.9).version == better.version
    assert promotion.should_promote(store, first.manifest, "-accuracy")


def test_a_schedule_is_activated_in_the_version_that_was_deployed_last(
    engine: FlytekitEngine, registered: Registration, root: Path
) -> None:
    """Deploy A, switch it off, deploy B, then A again: B was created last, and A was deployed last."""
    engine.switch_schedule("nightly", active=False)
    (root / "note.txt").write_text("another version")
    try:
        other = engine.register_project(engine.build_image(print), print)
        engine.deploy_schedules(other, print)
    finally:
        (root / "note.txt").unlink()
    assert other.version != registered.version
    engine.deploy_schedules(registered, print)
    assert engine.active_version() is None
    assert engine.switch_schedule("nightly", active=True).version == registered.version
    assert engine.active_version() == registered.version


def test_a_schedule_that_is_no_longer_declared_is_deactivated(
    engine: FlytekitEngine, registered: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.switch_schedule("nightly", active=True)
    messages: list[str] = []
    with monkeypatch.context() as patch:
        patch.delitem(engine.project.app.schedules, "nightly")
        engine.deploy_schedules(registered, messages.append)
    assert messages == ["schedule nightly is no longer declared and was deactivated"]
    assert engine.active_version() is None
    engine.switch_schedule("nightly", active=True)


def test_predictions_of_a_schedule_s_runs_are_written_to_the_current_folder(
    admin: Flyteadmin, registered: Registration, root: Path, mlapp: Callable[..., Any]
) -> None:
    for name, phase in (("scored", WorkflowPhase.SUCCEEDED), ("broken", WorkflowPhase.FAILED)):
        execution = end_run(admin, registered, name, phase)
        execution.message.spec.launch_plan.name = "flowers.predict.daily"
        file = admin.root / "store" / f"{name}.parquet"
        pd.DataFrame({"prediction": [1, 2]}).to_parquet(file)
        blob = literals_pb2.Blob(uri=str(file))
        execution.outputs["predictions"] = literals_pb2.Literal(scalar=literals_pb2.Scalar(blob=blob))
    ran = mlapp("schedule", "runs", "daily", "--fetch")
    assert ran.code == 0, ran.err
    written = [file.name for file in root.glob("daily-*.parquet")]
    assert written == ["daily-scored.parquet"]
    assert pd.read_parquet(root / written[0])["prediction"].tolist() == [1, 2]
    (root / written[0]).unlink()


def test_monitoring_s_windows_are_closed_by_a_schedule(
    admin: Flyteadmin, engine: FlytekitEngine, registered: Registration, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RUN", "flyte"), ("URL", "s3://bucket/live"), ("WINDOW", "15m")):
        monkeypatch.setenv(f"MLAPP_MONITOR__{name}", value)
    watching = FlytekitEngine(Project.find(root))
    own = watching.register_project(watching.build_image(print), print)
    watching.deploy_schedules(own, print)
    plan = admin.plans["flowers.monitor.monitor", own.version]
    assert plan.spec.entity_metadata.schedule.cron_schedule.schedule == "*/15 * * * *"
    assert plan.spec.workflow_id.name == "flowers.monitor"
    assert {state.name for state in watching.deployed_schedules() if state.active} == {"monitor", "nightly"}
    engine.deploy_schedules(registered, print)  # of settings without it
    assert {state.name for state in engine.deployed_schedules() if state.active} == {"nightly"}


def test_a_schedule_that_cannot_read_what_a_server_records_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_MONITOR__RUN", "flyte")
    watching = FlytekitEngine(Project.find(root))
    with pytest.raises(ConfigError, match="Flyte cannot read what the server records"):
        watching.register_project(watching.build_image(print), print)
