"""The name of the deployer in a release's record."""

from __future__ import annotations

import pwd
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from mlapp.deploy import Shipment
from mlapp.deploy.docker import DockerTarget
from mlapp.deploy.docker import target as docker_target
from mlapp.deploy.docker.containers import Server
from mlapp.deploy.docker.settings import DockerSettings


def test_a_user_id_without_a_name_can_deploy(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_no_user(number: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", find_no_user)
    containers = SimpleNamespace(list_servers=list, url="http://127.0.0.1:8000")
    monkeypatch.setattr(DockerTarget, "_open_containers", lambda target: nullcontext(containers))
    monkeypatch.setattr(
        docker_target,
        "roll_out",
        lambda containers, record, progress: Server(SimpleNamespace(name="digits-1", status="running"), record),  # type: ignore[arg-type]
    )
    release = DockerTarget("digits", DockerSettings()).apply(Shipment("digits", "sha256:1", "1"))
    assert (release.number, release.by) == (1, None)
