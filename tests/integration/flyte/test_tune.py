"""`mlapp tune --remote`: trials as a map task, a study that is here, a search that goes on when it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlapp.flyte import remote_search, runs
from mlapp.flyte.engine import FlytekitEngine
from mlapp.flyte.interface import Registration, Trials
from mlapp.tuning import Options
from tests.conftest import FLOWERS
from tests.integration.flyte.flyteadmin import Flyteadmin


def test_an_interrupted_search_continues_and_its_best_trial_becomes_a_version(
    engine: FlytekitEngine,
    admin: Flyteadmin,
    registered: Registration,
    mlapp: Callable[..., Any],
) -> None:
    folder = engine.project.root / ".mlapp/tuning"
    before = {run.id for run in engine.list_runs()}
    options = Options(trials=2, metric="accuracy", workers=2, fixed={"limit": "120"}, folder=folder)
    begun: list[str] = []

    def interrupted(run: str) -> None:
        begun.append(run)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remote_search.search_on_flyte(engine, engine.project.app, options, "accuracy", registered, follow=interrupted)
    assert engine.read_run(begun[0]).workflow == "flowers.tune"

    command = ["tune", "--remote", "--metric", "accuracy", "--workers", "2", "-p", "limit=120", "--json"]
    ran = mlapp(*command, "--trials", "3")
    assert ran.code == 0, ran.err
    runs_of_search = [run for run in engine.list_runs() if run.id not in before]
    tuned = [run for run in runs_of_search if run.workflow == "flowers.tune"]
    assert len(tuned) == 2  # the one that was begun is waited for, and one trial more is run
    first, second = (admin.executions[run.id] for run in reversed(tuned))
    assert first.message.spec.max_parallelism == 2
    assert [len(execution.inputs["trials"].collection.literals) for execution in (first, second)] == [2, 1]

    manifest = json.loads(ran.out)
    assert manifest["origin"]["engine"] == "flyte"
    training = runs_of_search[0]
    assert training.workflow == "flowers.train_split"  # on the data of the search, which is not read again
    assert {step.name for step in engine.read_run(training.id).steps} == {"train", "evaluate", "save"}
    trials = manifest["tuning"]["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 3
    best = trials[manifest["tuning"]["best"]]
    assert best["value"] == max(trial["value"] for trial in trials)
    assert manifest["parameters"]["C"] == best["parameters"]["model.C"]
    assert manifest["parameters"]["limit"] == 120


def test_later_trials_take_the_data_of_the_first_run_and_a_killed_one_is_left_out(
    engine: FlytekitEngine, registered: Registration
) -> None:
    trials = Trials([{"model.C": 0.1}, {"trainer.fail": "memory"}, {"trainer.fail": "wrong"}], 2, 0, at_once=3)
    run = engine.start_run("tune", {"limit": 120}, registered, trials=trials)
    runs.follow_run(engine.connection, run.id, print, pause=0.2)
    good, killed, failed = engine.fetch_trial_results(run.id)
    assert good is not None
    assert good.metrics
    assert killed is None
    assert failed is not None
    assert failed.error is not None
    assert "bad luck: wrong" in failed.error[0]

    again = Trials([{"model.C": 0.1}], 2, 0, at_once=1, data_of=run.id)
    later = engine.start_run("tune", {"limit": 120}, registered, trials=again)
    runs.follow_run(engine.connection, later.id, print, pause=0.2)
    assert engine.fetch_trial_results(later.id) == [good]
    assert {step.name for step in engine.read_run(later.id).steps} == {"trial"}


SEARCHED = FLOWERS.replace("import App", "import App, Search").replace("C: float", "C: Annotated[float, Search(0, 9)]")


@pytest.mark.parametrize(
    ("app", "message"),
    [(FLOWERS, "declares no parameter to search"), (f"from typing import Annotated\n{SEARCHED}", "such as --metric")],
)
def test_what_is_searched_and_by_which_metric_must_be_known_first(
    app: str, message: str, admin: Flyteadmin, mlapp: Callable[..., Any], project: Callable[..., Path]
) -> None:
    before = len(admin.calls)
    project(app)
    ran = mlapp("tune", "--remote")
    assert (ran.code, message in ran.err) == (2, True)
    assert len(admin.calls) == before
