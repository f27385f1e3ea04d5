"""The image of a cluster's tasks: built and pushed once, with the project's dependencies and without its code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlapp.errors import ConfigError
from mlapp.flyte import task_image
from mlapp.images.engine import connect_image_engine
from mlapp.images.task_image import build_task_image
from mlapp.project import Project
from tests.integration.images.conftest import NAME, Registry

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.timeout(600)]


def test_it_is_built_once_and_runs_code_that_is_brought(root: Path, registry: Registry, login: None) -> None:
    messages: list[str] = []
    # An extra that is small: that of Flyte is built the same way, and takes a minute to push.
    reference = build_task_image(Project.find(root), f"{registry.host}/team/{NAME}", "redis", progress=messages.append)
    assert f"/team/{NAME}@sha256:" in reference
    assert "what the tasks need has changed" in messages[0]

    messages.clear()
    (root / "app.py").write_text((root / "app.py").read_text() + "# code is not in it\n")
    assert (
        build_task_image(Project.find(root), f"{registry.host}/team/{NAME}", "redis", progress=messages.append)
        == reference
    )
    assert messages == []

    code = subprocess.run(["tar", "c", "-C", root, "app.py", "mlapp.yaml"], capture_output=True).stdout
    script = "tar x && python -c 'import redis; from mlapp.project import Project; print(Project.find().app.name)'"
    command = ["docker", "run", "--rm", "--interactive", reference, "sh", "-c", script]
    ran = subprocess.run(command, input=code, capture_output=True)
    assert ran.stdout == f"{NAME}\n".encode(), ran.stderr
    with connect_image_engine() as client:
        client.api.remove_image(reference, force=True)


def test_without_a_registry_it_says_what_to_set(root: Path) -> None:
    with pytest.raises(ConfigError, match="no registry to push one to"):
        task_image.choose_task_image(Project.find(root), print)
