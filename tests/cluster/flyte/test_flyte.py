"""The same on a real Flyte: run with MLAPP_TEST_FLYTE_CONFIG, a flytekit configuration, and an image with
mlapp-kit[flyte,sklearn] in it as MLAPP_TEST_FLYTE_IMAGE, or MLAPP_TEST_REGISTRY to have one built and pushed;
MLAPP_TEST_FLYTE_PROJECT and _DOMAIN where they are not flytesnacks, development.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from mlapp import training
from mlapp.flyte.errors import RunFailedError
from mlapp.flyte.interface import Trials
from mlapp.project import Project
from tests.cluster.flyte.settings import configure_engine
from tests.conftest import FLOWERS

APP = FLOWERS.replace("C: float", "C: Annotated[float, Search(0.01, 100, log=True)]").replace(
    "from mlapp import App", "import datetime\nfrom typing import Annotated\n\nfrom mlapp import App, Search"
)
APP = APP.replace("def read(", "def read(now: datetime.datetime | None = None, ")
APP += """
app.schedule("nightly", every=datetime.timedelta(days=1), parameters={"C": 0.5}, time="now", promote_if="accuracy")
"""


def test_train_there_and_fetch_the_model(project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from mlapp.flyte.engine import FlytekitEngine

    configure_engine(monkeypatch)
    engine = FlytekitEngine(Project.find(project(APP, requirements__txt="scikit-learn\n")))

    registration = engine.register_project(engine.build_image(print), print)
    assert engine.register_project(engine.build_image(print), print).created == ()
    engine.deploy_schedules(registration, print)
    (state,) = engine.list_schedules()
    assert (state.active, state.version) == (True, registration.version)
    assert engine.deactivate_schedules() == ["nightly"]

    started = engine.start_run("train", {"C": 0.1}, registration)
    assert engine.follow_run(started.id, print).phase == "succeeded"
    version = engine.fetch_model(started.id)
    assert version.manifest.metrics == training.run(engine.project.app, {"C": 0.1}).metrics

    predicting = engine.start_run("predict", {"limit": 5}, registration, version=version)
    engine.follow_run(predicting.id, print)
    assert len(engine.fetch_predictions(predicting.id)) == 5

    trials = Trials([{"C": 0.1}, {"C": 1.0}], folds=2, seed=0, at_once=2)
    tuning = engine.start_run("tune", {}, registration, trials=trials)
    engine.follow_run(tuning.id, print)
    assert all(result and result.metrics for result in engine.fetch_results(tuning.id))
    again = engine.start_run("tune", {}, registration, trials=dataclasses.replace(trials, data_of=tuning.id))
    engine.follow_run(again.id, print)
    assert engine.fetch_results(again.id) == engine.fetch_results(tuning.id)

    stopped = engine.start_run("train", {}, registration)
    engine.abort_run(stopped.id, "enough")
    with pytest.raises(RunFailedError, match="was aborted"):
        engine.follow_run(stopped.id, print)
