"""Errors between mlapp and Flyte, and their messages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from flyteidl.admin import node_execution_pb2
from flyteidl.core import literals_pb2

from mlapp.flyte import runs
from mlapp.flyte.engine import FlytekitEngine
from mlapp.flyte.errors import FlyteError, UnreachableError
from mlapp.flyte.file_transfer import ExpiredError
from mlapp.flyte.interface import Registration, Run
from tests.integration.flyte.flyteadmin import Flyteadmin
from tests.integration.flyte.propeller import NodePhase, WorkflowPhase
from tests.integration.flyte.runs import end_run


def test_no_configuration(mlapp: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLYTECTL_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = mlapp("runs", "list")
    assert (ran.code, ran.err.splitlines()[0]) == (2, "Error: There is no configuration for Flyte.")
    assert "~/.flyte/config.yaml" in ran.err
    monkeypatch.setenv("FLYTECTL_CONFIG", str(tmp_path / "none.yaml"))
    ran = mlapp("runs", "list")
    assert (ran.code, ran.err.splitlines()[1]) == (2, "Correct it, or unset it.")
    assert ran.err.startswith(f"Error: FLYTECTL_CONFIG names {tmp_path}/none.yaml, which does not exist.")


def test_an_endpoint_that_does_not_answer(configured: Path, mlapp: Callable[..., Any]) -> None:
    configured.write_text("admin:\n  endpoint: 127.0.0.1:9\n  insecure: true\n")
    ran = mlapp("train", "--remote")
    assert ran.code == 1
    assert "Error: Flyte at 127.0.0.1:9 does not answer" in ran.err
    assert "Traceback" not in ran.err


def test_an_expired_login(engine: FlytekitEngine, admin: Flyteadmin, monkeypatch: pytest.MonkeyPatch) -> None:
    from flytekit.clients.auth.authenticator import PKCEAuthenticator

    def no_browser(self: object) -> None:
        raise RuntimeError("no browser here")

    monkeypatch.setattr(PKCEAuthenticator, "refresh_credentials", no_browser)
    with (
        admin.refusing("*", grpc.StatusCode.UNAUTHENTICATED, "token is expired"),
        pytest.raises(FlyteError, match="rejects the login") as raised,
    ):
        engine.list_runs()
    assert raised.value.todo.startswith("Log in again")


@pytest.mark.parametrize("given", [("nowhere", "development"), ("flytesnacks", "elsewhere")])
def test_a_project_or_domain_that_does_not_exist(
    given: tuple[str, str], mlapp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_FLYTE__PROJECT", given[0])
    monkeypatch.setenv("MLAPP_FLYTE__DOMAIN", given[1])
    commands = ("train --remote", "schedule list", "schedule activate nightly", "releases --target flyte")
    for command in commands:
        ran = mlapp(*command.split())
        assert ran.code == 1
        assert "has no project '{}' with a domain '{}'".format(*given) in ran.err


def test_a_parameter_that_is_larger_than_a_message(engine: FlytekitEngine, registered: Registration) -> None:
    with pytest.raises(FlyteError, match=r"rejects a message that is too large: .* larger than max"):
        engine.start_run("train", {"fail": "x" * 5_000_000}, registered)


def test_what_would_be_refused_is_reported_before_an_image_is_built(
    configured: Path, mlapp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_FLYTE__IMAGE", "")
    configured.write_text("admin:\n  endpoint: 127.0.0.1:9\n  insecure: true\n")
    ran = mlapp("train", "--remote")
    assert ran.code == 1
    assert "Error: Flyte at 127.0.0.1:9 does not answer" in ran.err


def test_changes_that_are_not_committed_mark_the_version(engine: FlytekitEngine, root: Path) -> None:
    messages: list[str] = []
    (root / "note.txt").write_text("not committed")
    try:
        registration = engine.register_project(engine.build_image(print), messages.append)
    finally:
        (root / "note.txt").unlink()
    assert registration.dirty
    assert registration.version.endswith("-dirty")
    assert messages[0].startswith("git has changes that are not committed")


def test_a_start_whose_answer_was_lost_is_no_second_run(
    engine: FlytekitEngine, admin: Flyteadmin, registered: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def repair_network(seconds: float) -> None:
        pauses.append(seconds)
        admin.refusals.clear()

    monkeypatch.setattr(runs, "time", SimpleNamespace(sleep=repair_network))
    before = set(admin.executions)
    admin.refusals["CreateExecution"] = (grpc.StatusCode.UNAVAILABLE, "connection reset")
    run = engine.start_run("train", {"limit": 120, "fail": "at once"}, registered)
    monkeypatch.undo()
    assert pauses == [runs.PAUSE]
    assert set(admin.executions) - before == {run.id}
    engine.abort_run(run.id, "enough")


def test_outputs_that_have_expired(engine: FlytekitEngine, admin: Flyteadmin, registered: Registration) -> None:
    execution = end_run(admin, registered, "old", WorkflowPhase.SUCCEEDED)
    with pytest.raises(FlyteError, match="Run old has no output 'model'"):
        engine.fetch_model("old")
    gone = literals_pb2.Blob(uri=str(admin.root / "store" / "gone"))
    execution.outputs["model"] = literals_pb2.Literal(scalar=literals_pb2.Scalar(blob=gone))
    with pytest.raises(ExpiredError, match="no longer exists") as raised:
        engine.fetch_model("old")
    assert raised.value.todo == "Run again: mlapp train --remote."


def test_a_network_that_drops_in_the_middle(
    engine: FlytekitEngine, admin: Flyteadmin, registered: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = end_run(admin, registered, "long", WorkflowPhase.RUNNING)
    messages: list[str] = []

    def drop(run: Run) -> None:
        if not messages:
            admin.refusals["*"] = (grpc.StatusCode.UNAVAILABLE, "connection reset")

    def say(text: str) -> None:
        messages.append(text)
        admin.refusals.clear()
        execution.message.closure.phase = WorkflowPhase.SUCCEEDED

    done = runs.follow_run(engine.connection, "long", drop, progress=say, pause=0.1)
    assert done.phase == "succeeded"
    assert messages == ["Flyte does not answer; the run continues, and mlapp tries again", "Flyte answers again"]

    execution.message.closure.phase = WorkflowPhase.RUNNING
    monkeypatch.setattr(runs, "PATIENCE", 0.3)
    with (
        admin.refusing("*", grpc.StatusCode.UNAVAILABLE),
        pytest.raises(UnreachableError) as raised,
    ):
        runs.follow_run(engine.connection, "long", lambda run: None, pause=0.1)
    assert raised.value.todo == "The run continues. Follow it again: mlapp runs wait long"


def test_the_end_of_a_run_is_seen_with_one_call_after_its_last_task(
    engine: FlytekitEngine, admin: Flyteadmin, registered: Registration
) -> None:
    execution = end_run(admin, registered, "ending", WorkflowPhase.RUNNING)
    save = execution.nodes["evaluate-save"] = node_execution_pb2.NodeExecution()
    save.id.node_id = "evaluate-save"
    save.closure.phase = NodePhase.SUCCEEDED
    before = len(admin.calls)

    def end(run: Run) -> None:
        if run.steps:
            execution.message.closure.phase = WorkflowPhase.SUCCEEDED

    runs.follow_run(engine.connection, "ending", end, pause=0)
    assert admin.methods(before) == ["GetExecution", "ListNodeExecutions", "GetExecution"]


def test_ctrl_c_leaves_the_run_and_prints_how_to_follow_it_again(
    admin: Flyteadmin, registered: Registration, root: Path, tmp_path: Path
) -> None:
    end_run(admin, registered, "longer", WorkflowPhase.RUNNING)
    before = len(admin.calls)
    command = [sys.executable, "-m", "mlapp", "runs", "wait", "longer"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    following = subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while "ListNodeExecutions" not in admin.methods(before):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    following.send_signal(signal.SIGINT)
    assert following.stderr
    assert "The run continues. Follow it again: mlapp runs wait longer. Stop it: mlapp runs abort longer" in (
        following.stderr.read()
    )
    assert following.wait() == 130
    assert list(tmp_path.iterdir()) == [], "flytekit's folders for temporary files are removed"
    assert following.wait(100) == 130
