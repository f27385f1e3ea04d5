"""A project is registered, trained, searched and scheduled on a real Flyte, with the same results as locally."""

from __future__ import annotations

import dataclasses

import pytest

from mlapp import training
from mlapp.flyte.errors import RunFailedError
from mlapp.flyte.interface import Trials
from tests.cluster.flyte.conftest import Cluster, follow, register
from tests.conftest import FLOWERS

APP = FLOWERS.replace("C: float", "C: Annotated[float, Search(0.01, 100, log=True)]").replace(
    "from mlapp import App", "import datetime\nfrom typing import Annotated\n\nfrom mlapp import App, Search"
)
APP = APP.replace('App("flowers"', 'App("NAME"').replace("def read(", "def read(now: datetime.datetime | None = None, ")
APP += """
app.schedule("nightly", every=datetime.timedelta(days=1), parameters={"C": 0.5}, time="now", promote_if="accuracy")
"""


def test_train_there_and_fetch_the_model(cluster: Cluster) -> None:
    engine = cluster.open_project(APP)

    registration = register(engine)
    assert register(engine).created == ()
    engine.deploy_schedules(registration, print)
    (state,) = engine.list_schedules()
    assert (state.active, state.version) == (True, registration.version)
    assert engine.deactivate_schedules() == ["nightly"]

    started = engine.start_run("train", {"C": 0.1}, registration)
    assert follow(engine, started.id).phase == "succeeded"
    version = engine.fetch_model(started.id)
    assert version.manifest.metrics == training.run(engine.project.app, {"C": 0.1}).metrics

    predicting = engine.start_run("predict", {"limit": 5}, registration, version=version)
    follow(engine, predicting.id)
    assert len(engine.fetch_predictions(predicting.id)) == 5

    trials = Trials([{"C": 0.1}, {"C": 1.0}], folds=2, seed=0, at_once=2)
    tuning = engine.start_run("tune", {}, registration, trials=trials)
    follow(engine, tuning.id)
    assert all(result and result.metrics for result in engine.fetch_trial_results(tuning.id))
    again = engine.start_run("tune", {}, registration, trials=dataclasses.replace(trials, data_of=tuning.id))
    follow(engine, again.id)
    assert engine.fetch_trial_results(again.id) == engine.fetch_trial_results(tuning.id)

    stopped = engine.start_run("train", {}, registration)
    engine.abort_run(stopped.id, "enough")
    with pytest.raises(RunFailedError, match="was aborted"):
        follow(engine, stopped.id)
