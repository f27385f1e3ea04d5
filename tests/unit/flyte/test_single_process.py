"""A task of mlapp's runs in the process that downloaded its code; anything else in a second one, as flytekit has it."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from flytekit.bin import entrypoint

from mlapp.flyte import single_process

OWN = ["pyflyte-execute", "--inputs", "in.pb", "--resolver", "mlapp.flyte.task_graph.app_tasks", "--", "app", "app.py"]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What ran: the program that ran here with its arguments, or the command of a second process."""
    found: list[tuple[str, ...]] = []
    monkeypatch.setattr(sys, "path", ["/bin", "/lib"])
    monkeypatch.setattr(sys, "argv", ["pyflyte-fast-execute"])
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(signal, "signal", lambda number, _: found.append(("signal", str(int(number)))))
    monkeypatch.setattr(entrypoint, "execute_task_cmd", lambda: found.append(("here", *sys.argv)))
    monkeypatch.setattr(entrypoint, "_run_subprocess", lambda command, _: found.append(("second", *command)))
    single_process.replace_with_single_process()
    return found


def test_a_task_runs_here_with_the_code_on_its_path(runs: list[tuple[str, ...]]) -> None:
    entrypoint._run_subprocess(OWN, {"PYTHONPATH": f"/lib{os.pathsep}/code"})

    assert runs == [("signal", "15"), ("here", *OWN)], "the first process of a container would ignore SIGTERM"
    assert sys.path == ["/bin", "/code", "/lib"]


def test_another_flytekit_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_subprocess", "map_execute_task_cmd"):
        monkeypatch.delattr(entrypoint, name)
    single_process.replace_with_single_process()
    assert not hasattr(entrypoint, "_run_subprocess")


def test_tasks_of_others_run_in_a_second_process(runs: list[tuple[str, ...]]) -> None:
    for command in (
        ["pyflyte-execute", "--resolver", "flytekit.core.python_auto_container.default_task_resolver", "--"],
        ["pyflyte-execute"],
        ["other-program", *OWN[1:]],
    ):
        entrypoint._run_subprocess(command, {})
        assert runs.pop() == ("second", *command)
