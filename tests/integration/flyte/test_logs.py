"""`mlapp runs logs` and `runs list`, also when logs or runs are missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlapp.flyte.engine import FlytekitEngine
from mlapp.flyte.interface import Registration
from tests.integration.flyte.flyteadmin import Flyteadmin


@pytest.fixture
def run(engine: FlytekitEngine, admin: Flyteadmin, registered: Registration) -> Iterator[str]:
    """A run whose pod has not started, so that Flyte has no link to its log."""
    admin.propeller.nodes.pending["read"] = "Unschedulable:0/1 nodes are available: 1 node(s) were unschedulable."
    started = engine.start_run("train", {"limit": 7}, registered)
    while not admin.executions[started.id].tasks:
        time.sleep(0.02)
    yield started.id
    engine.abort_run(started.id, "enough")
    del admin.propeller.nodes.pending["read"]


def test_without_links_and_without_a_cluster_it_says_what_is_missing(
    run: str, mlapp: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    ran = mlapp("runs", "logs", run)
    assert (ran.code, "plugins.logs" in ran.err) == (0, True)


def test_a_run_that_does_not_exist_has_no_logs(mlapp: Callable[..., Any]) -> None:
    ran = mlapp("runs", "logs", "nosuch")
    assert (ran.code, "There is no run 'nosuch'." in ran.err) == (2, True)


@pytest.mark.parametrize("place", [("PROJECT", "other"), ("DOMAIN", "production")])
def test_runs_of_a_project_that_flyte_does_not_have_are_not_none(
    place: tuple[str, str], mlapp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"MLAPP_FLYTE__{place[0]}", place[1])
    ran = mlapp("runs", "list")
    assert (ran.code, f"'{place[1]}'" in ran.err) == (1, True)
