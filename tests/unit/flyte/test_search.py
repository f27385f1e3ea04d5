"""`mlapp tune --remote` with an engine that answers at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlapp.cli.tune import show_trial_table
from mlapp.flyte import remote_search
from mlapp.flyte.interface import Registration, Run, TrialResult, Trials
from mlapp.project import Project
from mlapp.tuning import Options
from tests.conftest import FLOWERS

SEARCHED = "from typing import Annotated\n" + FLOWERS.replace("import App", "import App, Search").replace(
    "C: float", "C: Annotated[float, Search(0.1, 9)]"
)


class Answers:
    """An engine. The first trial of each run fails, and the second one is killed."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def start_run(self, workflow: str, parameters: Any, registration: Registration, *, trials: Trials) -> Run:
        self.sizes.append(len(trials.parameters))
        return Run(f"r{len(self.sizes)}", "flowers.tune", "v1", "queued", "")

    def fetch_trial_results(self, run: str) -> list[TrialResult | None]:
        bad: list[TrialResult | None] = [TrialResult(error=("bad luck", "try again"), trace="Traceback: …"), None]
        good = (TrialResult(metrics={"accuracy": 0.5}) for _ in itertools.count())
        return list(itertools.islice(itertools.chain(bad, good), self.sizes[-1]))

    def list_run_kill_reasons(self, run: str) -> list[str]:
        return ["OOMKilled"]


def test_failed_trials_do_not_count_and_few_runs_are_started(
    project: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app, engine = Project.find(project(SEARCHED)).app, Answers()
    options = Options(trials=20, workers=2, folder=tmp_path / "tuning")

    def search() -> list[str]:
        registration = Registration("v1", ())
        with show_trial_table() as show_trials:
            result = remote_search.search_on_flyte(
                engine,  # type: ignore[arg-type]
                app,
                options,
                "accuracy",
                registration,
                follow=lambda run: None,
                on_update=show_trials,
            )
        return [trial.state for trial in result.trials]

    states = search()
    assert engine.sizes == [4] * 5
    assert (states.count("complete"), states.count("failed")) == (10, 10)
    output = capsys.readouterr().err
    assert "trial 0 failed: bad luck\ntrial 1 failed: The trial was killed: OOMKilled.\n" in output
    assert output.count("Traceback: …\n") == 1, "one traceback for trials that fail in the same way"
    states = search()
    assert sum(engine.sizes[5:]) == 10, "the same command again runs as many more"
    assert states.count("complete") == 20 - 2 * len(engine.sizes[5:])
