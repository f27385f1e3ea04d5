"""The template `microservices`: its own test serves two models and a gateway in three processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.compose import compose

pytestmark = pytest.mark.xdist_group("serving")


@pytest.fixture(scope="module")
def project(mlapp, tmp_path_factory) -> Path:
    parent = tmp_path_factory.mktemp("made")
    assert mlapp(parent, "init", "reading", "--template", "microservices").returncode == 0
    return parent / "reading"


def test_two_models_and_a_gateway_answer(project: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)
    assert "1 passed" in ran.stdout, ran.stdout
    assert not list(project.glob("*/.mlapp"))


def test_each_service_is_a_whole_project_with_pinned_requirements(project: Path) -> None:
    for name in ("digits", "oddity", "gateway"):
        assert {path.name for path in (project / name).iterdir()} >= {"app.py", "mlapp.yaml", "requirements.txt"}
        option, *requirements = (project / name / "requirements.txt").read_text().splitlines()
        assert option == "--find-links ../wheels"
        assert all("==" in line for line in requirements), requirements


def test_compose_starts_the_gateway_when_both_models_are_healthy(project: Path) -> None:
    services = yaml.safe_load((project / "compose.yaml").read_text())["services"]
    ports = {name: yaml.safe_load((project / name / "mlapp.yaml").read_text())["serve"]["port"] for name in services}
    gateway = services["gateway"]
    assert gateway["environment"] == {
        f"{name.upper()}_URL": f"http://{name}:{ports[name]}" for name in ("digits", "oddity")
    }
    assert gateway["ports"] == [f"127.0.0.1:8000:{ports['gateway']}"]
    assert {one["condition"] for one in gateway["depends_on"].values()} == {"service_healthy"}
    assert [name for name, service in services.items() if "ports" in service] == ["gateway"]
    assert "gateway" in compose(project / "compose.yaml", "config")
