"""The same on a real Flyte: run with MLAPP_TEST_FLYTE_CONFIG, a flytekit configuration, and MLAPP_TEST_FLYTE_IMAGE, an
image with mlapp[flyte,sklearn] in it; MLAPP_TEST_FLYTE_PROJECT and _DOMAIN where they are not flytesnacks, development.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mlapp import training
from mlapp.flyte.errors import RunFailedError
from mlapp.project import Project

CONFIG = os.environ.get("MLAPP_TEST_FLYTE_CONFIG")


def test_train_there_and_fetch_the_model(project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from mlapp.flyte.engine import FlytekitEngine

    monkeypatch.setenv("FLYTECTL_CONFIG", str(CONFIG))
    monkeypatch.setenv("MLAPP_FLYTE__IMAGE", os.environ["MLAPP_TEST_FLYTE_IMAGE"])
    monkeypatch.setenv("MLAPP_FLYTE__PROJECT", os.environ.get("MLAPP_TEST_FLYTE_PROJECT", "flytesnacks"))
    monkeypatch.setenv("MLAPP_FLYTE__DOMAIN", os.environ.get("MLAPP_TEST_FLYTE_DOMAIN", "development"))
    engine = FlytekitEngine(Project.find(project()))

    registration = engine.register(engine.build(print), print)
    assert engine.register(engine.build(print), print).created == ()
    started = engine.run("train", {"C": 0.1}, registration)
    assert engine.watch(started.id, print).phase == "succeeded"
    version = engine.fetch(started.id)
    assert version.manifest.metrics == training.run(engine.project.app, {"C": 0.1}).metrics

    predicting = engine.run("predict", {"limit": 5}, registration, version=version)
    engine.watch(predicting.id, print)
    assert len(engine.predictions(predicting.id)) == 5

    stopped = engine.run("train", {}, registration)
    engine.abort(stopped.id, "enough")
    with pytest.raises(RunFailedError, match="was aborted"):
        engine.watch(stopped.id, print)
