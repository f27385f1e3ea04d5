"""A target that others add: one class, the five steps, found by its entry point."""

from __future__ import annotations

import datetime
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from mlapp import plugins
from mlapp.config import Section, Settings
from mlapp.deploy import CanaryTarget, Release, Shipment, Status, Target, open_target
from mlapp.deploy.target import ignore_progress
from mlapp.errors import ConfigError, UsageError
from mlapp.reporting import Reporter


class MemorySettings(Section, frozen=True):
    region: str = "here"


class MemoryTarget(Target[MemorySettings]):
    """A minimal target."""

    name = "memory"
    settings_type = MemorySettings

    def __init__(self, app: str, settings: MemorySettings, serve: Any = None) -> None:
        super().__init__(app, settings, serve)
        self._releases: list[Release] = []

    def render(self, shipment: Shipment) -> list[dict[str, Any]]:
        return [{"image": shipment.image, "region": self.settings.region}]

    def apply(self, shipment: Shipment, *, progress: Reporter = ignore_progress, take_over: bool = False) -> Release:
        now = datetime.datetime.now(datetime.timezone.utc)
        self._releases.append(Release(len(self._releases) + 1, self.app, self.name, shipment, now, "live"))
        progress("it runs")
        return self._releases[-1]

    def status(self) -> Status:
        return Status(self.app, self.name, self._releases[-1] if self._releases else None)

    def releases(self) -> list[Release]:
        return self._releases

    def rollback(self, to: int | None = None, *, progress: Reporter = ignore_progress) -> Release:
        return self.apply(self._releases[(to or len(self._releases) - 1) - 1].shipment)

    def delete(self, *, progress: Reporter = ignore_progress) -> list[str]:
        return [str(self._releases.pop().number) for _ in list(self._releases)]


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    entry = EntryPoint("memory", f"{__name__}:MemoryTarget", plugins.TARGETS)
    monkeypatch.setattr(plugins, "list_plugins", lambda group: {"memory": entry})


def test_a_target_is_opened_with_its_own_section_of_the_settings():
    settings = Settings(targets={"memory": {"region": "there"}})

    opened = open_target("memory", "digits", settings)

    assert opened.render(Shipment("digits", "image@sha256:1")) == [{"image": "image@sha256:1", "region": "there"}]


def test_a_flag_overrides_the_file():
    opened = open_target("memory", "digits", Settings(targets={"memory": {"region": "there"}}), {"region": "elsewhere"})

    assert opened.settings.region == "elsewhere"


def test_a_release_is_deployed_and_rolled_back_to():
    opened = open_target("memory", "digits", Settings())
    opened.apply(Shipment("digits", "one"))
    opened.apply(Shipment("digits", "two"))

    assert opened.rollback().shipment.image == "one"
    assert opened.status().release.number == 3
    assert opened.delete() == ["3", "2", "1"]


def test_a_target_without_canaries_is_seen_to_have_none():
    assert not isinstance(open_target("memory", "digits", Settings()), CanaryTarget)


def test_an_unknown_target_names_the_nearest():
    with pytest.raises(UsageError, match=r"no target 'memroy'\. Did you mean 'memory'"):
        open_target("memroy", "digits", Settings())


def test_an_unknown_setting_of_a_target_names_its_place():
    with pytest.raises(ConfigError, match=r"targets\.memory\.regoin"):
        open_target("memory", "digits", Settings(targets={"memory": {"regoin": "x"}}))
