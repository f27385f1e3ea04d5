"""Unmodified pyflyte registers and runs the workflows of a module, and user workflows around them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.integration.flyte.flyteadmin import Flyteadmin
from tests.integration.flyte.propeller import WorkflowPhase

IMAGE = "registry.example/flowers:1"


def pyflyte(*arguments: str, config: Path, cwd: Path) -> str:
    program = Path(sys.executable).with_name("pyflyte")
    environment = {**os.environ, "FLYTECTL_CONFIG": str(config), "PYTHONPATH": ""}
    done = subprocess.run([program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_register(admin: Flyteadmin, configured: Path, root: Path) -> None:
    options = ["--destination-dir", ".", "--image", IMAGE, "--version", "by-hand"]
    pyflyte("register", *options, "workflows.py", config=configured, cwd=root)
    container = admin.propeller.tasks["flowers.train.train", "by-hand"].template.container
    arguments = list(container.args)
    assert arguments[arguments.index("--dest-dir") + 1] == "."
    names = {name for name, version in admin.workflows if version == "by-hand"}
    assert names == {"flowers.train", "flowers.predict", "workflows.train_and_predict"}
    assert ("flowers.train.evaluate-save", "by-hand") in admin.propeller.tasks
    plan = admin.plans["flowers.train", "by-hand"]
    assert plan.spec.default_inputs.parameters["c"].default.scalar.primitive.float_value == 1.0


def test_run_a_workflow_of_the_user_s_own(admin: Flyteadmin, configured: Path, root: Path) -> None:
    before = set(admin.executions)
    given = ["workflows.py", "train_and_predict", "--c", "0.5"]
    pyflyte("run", "--remote", "--copy", "all", "--image", IMAGE, *given, config=configured, cwd=root)
    (name,) = set(admin.executions) - before
    execution = admin.executions[name]
    deadline = time.monotonic() + 240
    while execution.message.closure.phase in (WorkflowPhase.QUEUED, WorkflowPhase.RUNNING):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert execution.message.closure.phase == WorkflowPhase.SUCCEEDED, execution.message.closure.error.message
    (metrics,) = execution.outputs.values()
    assert set(metrics.map.literals) == {"train", "test"}
