"""A cluster with KServe that is a double, and an app to ship to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import yaml
from api_double import ONE, kubeconfig
from kserve_double import KServeDouble

from mlapp.config import Settings
from mlapp.deploy import Shipment, open_target
from mlapp.deploy.kserve import KServeTarget


@pytest.fixture
def api() -> Iterator[KServeDouble]:
    double = KServeDouble()
    yield double
    double.close()


@pytest.fixture
def target(api, tmp_path, monkeypatch) -> Callable[..., KServeTarget]:
    """The target as the command line opens it; keywords are settings of `targets.kserve`."""
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(kubeconfig(api)))
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("mlapp.deploy.kserve.canary.ACCEPT_TIMEOUT", 0.0)
    monkeypatch.setattr("mlapp.deploy.kserve.readiness.FAILURE_PATIENCE", 0.2)

    def make_target(*, seconds: int = 30, **settings: Any) -> KServeTarget:
        if settings.get("mode") != "knative":
            settings.setdefault("rollout", {}).setdefault("leave", 0)
        place = open_target("kserve", "digits", Settings(targets={"kserve": settings}))
        rollout = msgspec.structs.replace(place.settings.rollout, timeout=seconds)  # less than a user may set
        place.settings = msgspec.structs.replace(place.settings, rollout=rollout)
        return place

    return make_target


@pytest.fixture
def ship() -> Callable[..., Shipment]:
    def make_shipment(image: str = ONE, model_version: str = "1", **more: Any) -> Shipment:
        return Shipment("digits", image, model_version, "c0ffee", example=[{"pixel": 1}], **more)

    return make_shipment
