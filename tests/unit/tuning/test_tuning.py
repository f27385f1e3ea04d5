"""`mlapp tune`: the searched parameters, resuming, and the version with the best parameters."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlapp import App, Search, tuning
from mlapp.errors import DeclarationError, MlappError, UsageError
from mlapp.progress import report
from mlapp.project import Project
from mlapp.tuning import list_spaces

FLOWERS = """
from typing import Annotated, Literal

import pandas as pd
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlapp import App, Search

app = App("flowers", target="target")


@app.data_reader
def read(limit: int | None = None) -> pd.DataFrame:
    return load_iris(as_frame=True).frame.sample(frac=1, random_state=0).head(limit)


@app.model
def build(
    C: Annotated[float, Search(1e-5, 10, log=True)] = 1e-5,
    fit_intercept: bool = True,
    solver: Literal["lbfgs", "newton-cg"] = "lbfgs",
) -> LogisticRegression:
    return LogisticRegression(C=C, fit_intercept=fit_intercept, solver=solver, max_iter=500)
"""

SLOW = """

@app.trainer
def fit(model, X, y):
    import time

    time.sleep(0.2)
    return model.fit(X, y)
"""


@pytest.mark.needs("optuna")
def test_the_best_trial_becomes_a_version_and_a_search_continues(mlapp: Callable, project: Callable) -> None:
    root = project(FLOWERS)
    ran = mlapp("tune", "--trials", "4", "--json")
    assert ran.code == 0, ran.err
    manifest = json.loads(ran.out)
    tuning = manifest["tuning"]
    assert (tuning["metric"], tuning["minimize"], len(tuning["trials"])) == ("accuracy", False, 4)
    best = next(trial for trial in tuning["trials"] if trial["number"] == tuning["best"])
    assert best["value"] == max(trial["value"] for trial in tuning["trials"] if trial["state"] == "complete")
    for name, value in best["parameters"].items():
        assert manifest["parameters"][name.partition(".")[2]] == value
    assert "trial 0 complete, accuracy" in ran.err

    page = (root / f".mlapp/tuning/{tuning['study']}.html").read_text()
    assert "4 trials" in page
    assert 'src="http' not in page

    more = json.loads(mlapp("tune", "--trials", "4", "--json").out)
    assert more["tuning"] == tuning, "all trials are there: none is run again"
    assert more["version"] == 2


@pytest.mark.needs("optuna")
def test_a_search_keeps_others_from_its_study_and_continues_when_it_is_killed(
    mlapp: Callable, project: Callable
) -> None:
    root = project(FLOWERS + SLOW)
    command = [sys.executable, "-m", "mlapp", "tune", "--trials", "200"]
    running = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    first = running.stderr.readline()
    other = mlapp("tune", "--trials", "1")
    assert other.code == 2
    assert "Another `mlapp tune` already searches these parameters" in other.err
    running.kill()
    running.wait()
    assert re.match(r"trial \d complete", first), first + running.stderr.read()
    running.stderr.read()  # returns when the last worker has ended: none is left behind

    result = tuning.search_parameters(partial(_flowers, root), tuning.Options(trials=1, folder=root / ".mlapp/tuning"))
    states = [trial.state for trial in result.trials]
    assert "complete" in states
    assert len(states) < 200
    assert not [trial for trial in result.study.get_trials(deepcopy=False) if not trial.state.is_finished()]


@pytest.mark.needs("optuna")
def test_ctrl_c_ends_all_processes_and_says_how_to_go_on(project: Callable) -> None:
    command = [sys.executable, "-m", "mlapp", "tune", "--trials", "200"]
    running = subprocess.Popen(
        command, cwd=project(FLOWERS + SLOW), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert running.stderr is not None
    running.stderr.readline()
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the workers too
    output = running.stderr.read()
    assert running.wait() == 130
    assert re.search(r"^Stopped after \d+ trials\. Run the same command again to continue\.$", output, re.MULTILINE)
    assert "Traceback" not in output


@pytest.mark.needs("optuna")
def test_ctrl_c_while_the_workers_start_ends_the_search(project: Callable) -> None:
    command = [sys.executable, "-m", "mlapp", "tune", "--trials", "200", "--workers", "2"]
    running = subprocess.Popen(
        command, cwd=project(FLOWERS + SLOW), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    while not any(is_search_worker(child) for child in children.read_text().split()):
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.001)
    os.killpg(running.pid, signal.SIGINT)
    output = running.communicate()[1]
    assert (running.returncode, "Run the same command again to continue." in output) == (130, True), output


def is_search_worker(process: str) -> bool:
    """Whether a process is one that `mlapp tune` starts for its trials."""
    try:
        return b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def test_a_trial_that_is_worse_is_ended_early(project: Callable, tmp_path: Path) -> None:
    project(FLOWERS)
    app = App("reporting", target="target")
    app.data_reader(lambda: load_iris(as_frame=True).frame)
    app.model(LogisticRegression)
    reached: list[float] = []

    @app.trainer
    def fit(model, X, y, *, speed: Annotated[float, Search(0, 1)] = 0.5):
        for step in range(1, 21):
            report(step, 20, accuracy=speed * step)
            reached.append(speed)
        return model.fit(X, y)

    options = tuning.Options(metric="accuracy", folder=tmp_path / "studies", folds=2)
    definition = tuning.StudyDefinition.from_options(app, options)
    study = tuning.Study.open(app, options, definition)
    evaluator = tuning.TrialEvaluator(app, {}, 2, 0)
    for speed in (0.5, 0.6, 0.7, 0.8, 0.1):
        study.study.enqueue_trial({"trainer.speed": speed})
        trial = study.ask()
        study.tell(trial, tuning.evaluate_search_trial(evaluator, trial, definition))
    assert [trial.state for trial in study.collect_trials().trials] == ["complete"] * 4 + ["pruned"]
    assert reached.count(0.8) == 2 * 20
    assert reached.count(0.1) < 10


@pytest.mark.needs("optuna")
def test_what_fails_with_the_defaults_is_reported_before_the_search(project: Callable) -> None:
    root = project(FLOWERS.replace("return LogisticRegression(C=C,", "return LogisticRegression(C=-C,"))
    with pytest.raises(MlappError, match="raised InvalidParameterError"):
        tuning.search_parameters(partial(_flowers, root), tuning.Options(folder=root / ".mlapp/tuning"))


def _flowers(root: Path) -> App:
    return Project.find(root).app


@pytest.mark.needs("optuna")
def test_a_metric_that_the_evaluator_does_not_give(mlapp: Callable, project: Callable) -> None:
    project(FLOWERS)
    ran = mlapp("tune", "--trials", "1", "--metric", "acuracy", "--workers", "1")
    assert ran.code != 0
    assert "no metric 'acuracy'. Did you mean 'accuracy'?" in ran.err
    assert "Traceback" not in ran.err


def test_what_is_searched() -> None:
    app = App("spaces", target="y")

    @app.data_reader
    def read(cached: bool = True, rows: Annotated[int, Search(10, 100)] = 10) -> list:
        return []

    @app.model
    def build(C: Annotated[float, Search(0.1, 1)] = 1.0, kind: Literal["a", "b"] = "a", tol: float = 1.0) -> object:
        return LogisticRegression()

    assert [space.name for space in list_spaces(app, {})] == ["data_reader.rows", "model.C", "model.kind"]
    assert [space.name for space in list_spaces(app, {"C": 1.0, "model.kind": "a"})] == ["data_reader.rows"]
    with pytest.raises(UsageError, match="declares no parameter to search"):
        list_spaces(app, {"C": 1.0, "kind": "a", "rows": 1})


def test_a_range_that_cannot_be() -> None:
    with pytest.raises(DeclarationError, match="is empty"):
        Search(2, 1)
    with pytest.raises(DeclarationError, match="starts at 0"):
        Search(0, 1, log=True)


@pytest.mark.needs("optuna")
def test_the_documented_python_calls_work(project: Callable) -> None:
    root = project(FLOWERS)
    page = (Path(__file__).parents[3] / "docs/tuning.md").read_text(encoding="utf-8")
    code = "".join(re.findall(r"```python\n(.*?)```", page.partition("## Use it from Python")[2], re.DOTALL))
    names = {"load": partial(_flowers, root), "app": _flowers(root), "value": 0.5}
    exec(code.replace('trials=50, metric="f1_macro"', "trials=2, workers=1"), names)
    assert names["result"].best.value > 0.5
    assert names["study"].collect_trials().trials[-1].value == 0.5
