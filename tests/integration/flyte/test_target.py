"""`mlapp deploy --target flyte`: everything is registered, and a release is a registered version."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlapp.flyte.interface import Registration
from tests.integration.flyte.flyteadmin import Flyteadmin


def test_dry_run_shows_every_object(admin: Flyteadmin, mlapp: Callable[..., Any]) -> None:
    before = len(admin.calls)
    ran = mlapp("deploy", "--target", "flyte", "--dry-run")
    assert ran.code == 0, ran.err
    documents = [(document["kind"], document["id"]["name"]) for document in yaml.safe_load_all(ran.out)]
    assert ("launch plan", "flowers.train.nightly") in documents
    assert [name for kind, name in documents if kind == "workflow"] == [
        "flowers.train",
        "flowers.predict",
        "flowers.tune",
    ]
    assert admin.calls[before:] == []


def test_deploy_go_back_and_leave(
    admin: Flyteadmin, registered: Registration, mlapp: Callable[..., Any], root: Path
) -> None:
    ran = mlapp("deploy", "--target", "flyte")
    assert ran.code == 0, ran.err
    assert "registered already" in ran.err
    (root / "note.txt").write_text("another release")
    try:
        assert mlapp("deploy", "--target", "flyte").code == 0
    finally:
        (root / "note.txt").unlink()

    def releases() -> list[tuple[str, str]]:
        releases = json.loads(mlapp("releases", "--target", "flyte", "--json").out)
        return [(release["note"], release["state"]) for release in releases]

    first = next(version for version, _ in releases() if version == registered.version)
    assert releases()[-1][1] == "live"
    ran = mlapp("rollback", "--target", "flyte", "--to", str([v for v, _ in releases()].index(first) + 1))
    assert ran.code == 0, ran.err
    assert dict(releases())[first] == "live"
    ran = mlapp("status", "--target", "flyte", "--json")
    assert json.loads(ran.out)["release"]["note"] == first

    assert mlapp("delete", "--target", "flyte", "--yes").code == 0
    (state,) = json.loads(mlapp("schedule", "list", "--json").out)
    assert not state["active"]
    assert mlapp("schedule", "activate", "nightly").code == 0


def test_it_is_operated_while_the_code_is_broken(
    registered: Registration, mlapp: Callable[..., Any], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "app", raising=False)
    code = (root / "app.py").read_text()
    (root / "app.py").write_text(f"{code}\nraise RuntimeError('the code is broken')\n")
    try:
        for command in (
            ["status", "--target", "flyte", "--json"],
            ["releases", "--target", "flyte"],
            ["runs", "list"],
            ["schedule", "deactivate", "nightly"],
            ["schedule", "activate", "nightly"],
            ["schedule", "list", "--json"],
        ):
            ran = mlapp(*command)
            assert ran.code == 0, (command, ran.err)
    finally:
        (root / "app.py").write_text(code)
    state = next(state for state in json.loads(ran.out) if state["name"] == "nightly")
    assert (state["when"], state["promote_if"]) == ("0 3 * * *", "accuracy")
    assert "The app cannot be read" in ran.err
