"""Packages add frameworks, sources, targets and engines by entry points; one that is broken disables nothing else."""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
from pathlib import Path

import pytest

from mlapp import App, plugins
from mlapp.engines import open_project_engine
from mlapp.errors import ConfigError, UsageError
from mlapp.frameworks import registry
from mlapp.project import Project

ACME = """
from typing import Annotated

from msgspec import Meta

from mlapp.config import Section
from mlapp.deploy import Release, Status, Target


class Settings(Section, frozen=True):
    region: str = "here"
    zones: list[str] = []
    spot: bool = False


class Flags(Section, frozen=True):
    region: Annotated[str | None, Meta(description="Region to run in.")] = None
    zones: list[str] | None = None
    spot: bool | None = None


class AcmeTarget(Target[Settings]):
    name = "acme"
    settings_type = Settings
    flags_type = Flags
    needs_registry = False
    ships_image = False
    eject_formats = ("json",)

    def render(self, shipment):
        return [{"image": shipment.image, "region": self.settings.region}]

    def apply(self, shipment, *, progress=print, take_over=False): ...
    def releases(self): return []
    def rollback(self, to=None, *, progress=print): ...
    def delete(self, *, progress=print): return []

    def status(self):
        settings = self.settings
        return Status(self.app, self.name, None, problems=(f"{settings.region} {settings.zones} {settings.spot}",))

    def eject(self, shipment, folder, format):
        folder.mkdir()
        (folder / "acme.json").write_text(self.settings.region)
        return [folder / "acme.json"]


def open_acme(project):
    return f"the engine of {project.name}"


class OlderEngine:
    def __init__(self, project):
        self.project = project

    def start_run(self, workflow, parameters, registration):
        raise AssertionError("no run may start")


def source(table):
    def read() -> list:
        return [{"table": table}]

    return read
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, with the package acme-mlapp installed, of which some plugins cannot be imported."""
    site = tmp_path / "site"
    info = site / "acme_mlapp-1.2.dist-info"
    info.mkdir(parents=True)
    (site / "acme_mlapp.py").write_text(ACME)
    (site / "acme_broken.py").write_text("import acme_is_not_installed\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-mlapp\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        textwrap.dedent("""
            [mlapp.targets]
            acme = acme_mlapp:AcmeTarget
            broken = acme_broken:Target
            [mlapp.frameworks]
            broken = acme_broken:Framework
            [mlapp.sources]
            acme = acme_mlapp:source
            broken = acme_broken:source
            [mlapp.engines]
            acme = acme_mlapp:open_acme
            older = acme_mlapp:OlderEngine
            """)
    )
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    registry._list_framework_names.cache_clear()
    registry._load_framework_adapter.cache_clear()
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "app.py").write_text("from mlapp import App\napp = App('flowers')\n")
    (folder / "mlapp.yaml").write_text("name: flowers\nengine: acme\n")
    monkeypatch.chdir(folder)
    yield folder
    registry._list_framework_names.cache_clear()
    registry._load_framework_adapter.cache_clear()
    for module in ("acme_mlapp", "acme_broken"):
        sys.modules.pop(module, None)


def test_a_broken_plugin_is_named_with_its_distribution(project: Path) -> None:
    with pytest.raises(plugins.PluginError) as raised:
        App("flowers").data_reader.broken("t")

    assert "data source 'broken' of the package acme-mlapp 1.2" in raised.value.what
    assert "acme_is_not_installed" in raised.value.what
    assert "pip uninstall acme-mlapp" in raised.value.todo


def test_a_broken_plugin_disables_nothing_else(project: Path) -> None:
    assert registry.find_framework(dict).name == "python"
    assert App("flowers").data_reader.acme("t")() == [{"table": "t"}]
    assert dict(plugins.load_plugins(plugins.TARGETS)).keys() >= {"acme", "docker", "k8s"}


def test_doctor_finds_it(project: Path, mlapp) -> None:
    done = mlapp("doctor", "--json")

    found = {finding["what"]: finding for finding in json.loads(done.out) if not finding["works"]}
    assert {"target broken", "framework broken", "data source broken"} <= found.keys()
    assert "acme-mlapp 1.2" in found["target broken"]["detail"]


def test_a_target_has_flags_of_its_own(project: Path, mlapp) -> None:
    (project / "mlapp.yaml").write_text("name: flowers\ntargets: {acme: {region: there}}\n")

    assert "there [] False" in mlapp("status", "--target", "acme").err
    given = mlapp("status", "--region", "moon", "--zones", "a", "--zones", "b", "--spot")
    assert given.code == 0, given.err
    assert "moon ['a', 'b'] True" in given.err
    assert "Region to run in." in mlapp("status", "--target", "acme", "--help").out
    assert mlapp("status", "--target", "docker", "--region", "moon").code == 2


def test_a_target_hands_over_its_files(project: Path, mlapp) -> None:
    assert "acme" in mlapp("eject", "--help").out

    done = mlapp("eject", "acme", "--to", "out", "--region", "moon")

    assert done.code == 0, done.err
    assert (project / "out" / "acme.json").read_text() == "moon"
    assert mlapp("eject", "acme", "--format", "toml").code == 2


def test_an_engine_is_chosen_in_mlapp_yaml(project: Path) -> None:
    assert open_project_engine(Project.find()) == "the engine of flowers"

    (project / "mlapp.yaml").write_text("name: flowers\nengine: acne\n")
    with pytest.raises(ConfigError, match="Did you mean 'acme'"):
        open_project_engine(Project.find())


def test_an_engine_whose_runs_have_no_id_of_ours(project: Path, mlapp) -> None:
    (project / "mlapp.yaml").write_text("name: flowers\nengine: older\n")

    done = mlapp("train", "--remote", "--run-id", "retrain-1")

    assert done.code == 2
    assert "--run-id cannot be used with the engine 'older': it names its runs itself." in done.err
    assert "Leave out --run-id" in done.err


def test_an_unknown_target_is_answered_with_those_there_are(project: Path) -> None:
    from mlapp.deploy.target import find_target_class

    with pytest.raises(UsageError, match="There is no target 'acm'"):
        find_target_class("acm")
