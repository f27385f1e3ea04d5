"""An operator's commands for an app with broken or missing code, for every target."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

CODE = "from mlapp import App\n\napp = App('digits', target='target')\nopen('ran', 'w')\nraise RuntimeError('away')\n"
"""An app that raises when it is imported."""


def operate_without_code(
    mlapp: Callable[..., Any],
    root: Path,
    target: str,
    start_canary: Callable[[], object],
    *,
    answer: Callable[[], None] = lambda: None,
) -> None:
    """Run every operation on an app of which release 2 is live and release 3 a canary; then all is removed.

    Args:
        root: the project's folder, with `CODE`. That file is removed on the way: then mlapp.yaml is all there is.
        start_canary: starts another canary, which is then promoted.
        answer: called before each command that asks the app for a prediction.
    """

    def run(*arguments: str) -> Any:
        ran = mlapp(*arguments, "--target", target)
        assert ran.code == 0, (arguments, ran.err)
        return json.loads(ran.out) if "--json" in arguments else ran.out

    status = run("status", "--json")
    assert (status["release"]["number"], status["canary"]["number"]) == (2, 3)
    run("logs", "--tail", "1")
    assert [release["number"] for release in run("releases", "--json")][-3:] == [1, 2, 3]
    assert not (root / "ran").exists(), "the code was run"
    (root / "app.py").unlink()
    assert run("abort", "--json")["state"] == "aborted"
    start_canary()
    assert run("promote", "--json")["state"] == "live"
    answer()
    assert run("rollback", "--to", "1", "--json")["state"] == "live"
    (root / "rows.json").write_text('[{"pixel": 1}]')
    answer()
    assert json.loads(run("predict", "--features", "rows.json")) == [7]
    run("delete", "--yes")
    assert run("status", "--json")["release"] is None
    assert run("releases", "--json") == []
    ran = mlapp("logs", "-f", "--target", target)
    assert (ran.code, "has no release" in ran.err, len(ran.err.splitlines())) == (1, True, 2), ran


def write_log_group(name: str, region: str) -> None:
    """An empty group of CloudWatch's logs, as AWS makes one with the first line."""
    import boto3

    boto3.client("logs", region).create_log_group(logGroupName=name)
