"""`mlapp tune`"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.parameters import Parameters, ParametersFile, read_command_parameters
from mlapp.cli.remote import announce_remote_run, fetch_remote_model, follow_remote_run, register_remote_project
from mlapp.engines import open_project_engine

if TYPE_CHECKING:
    from mlapp.app import App
    from mlapp.flyte.interface import Run
    from mlapp.project import Project
    from mlapp.store import ModelVersion
    from mlapp.tuning import Options, SearchResult, Trial


def tune_model(
    trials: Annotated[
        int, typer.Option(min=1, help="Total number of trials. Run the command again to continue the search.")
    ] = 20,
    metric: Annotated[str | None, typer.Option(help="Metric of the evaluator. By default its first one.")] = None,
    minimize: Annotated[
        bool | None,
        typer.Option(
            "--minimize/--maximize", help="Whether lower or higher is better. By default, decided by the metric's name."
        ),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Number of cross-validation folds.")] = 3,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Concurrent trials. By default the number of cores, or 8 with --remote.")
    ] = None,
    parameter: Parameters = None,
    params: ParametersFile = None,
    environment: Environment = None,
    remote: Annotated[bool, typer.Option("--remote", help="Run the trials on Flyte, as map tasks.")] = False,
    json: Json = False,
) -> None:
    """Search for the best parameters, here or on Flyte.

    The best values train a new model version.

    Examples:

      mlapp tune --trials 50

      mlapp tune --metric rmse --folds 5 -p limit=1000

      mlapp tune --remote --trials 200 --workers 20
    """
    from mlapp import tuning
    from mlapp.project import Project

    fixed = read_command_parameters(params, parameter)
    project = Project.find(environment=environment)
    project.store.check_writable()
    folder = project.root / ".mlapp/tuning"
    options = tuning.Options(
        trials=trials, metric=metric, minimize=minimize, folds=folds, workers=workers, fixed=fixed, folder=folder
    )
    search, version = _tune_on_flyte(project, options) if remote else _tune_here(project, options, environment)
    page = tuning.write_search_page(search, folder / f"{search.study.study_name}.html")
    if json:
        output.print_json(version.manifest)
        return
    _print_tuning_result(search)
    output.print_note(f"The plots of the {len(search.trials)} trials are in {os.path.relpath(page)}.")
    output.print_note(f"{version.app} version {version.version} has the parameters of trial {search.best.number}.")


def _tune_here(project: Project, options: Options, environment: str | None) -> tuple[SearchResult, ModelVersion]:
    from mlapp import training, tuning
    from mlapp.frameworks import threads
    from mlapp.provenance import read_git_state

    finished_count = 0

    def count_trials(result: SearchResult) -> None:
        nonlocal finished_count
        finished_count = len(result.trials)
        show_trials(result)

    with show_trial_table() as show_trials:
        try:
            result = tuning.search_parameters(
                partial(_load_tuned_app, project.root, environment), options, count_trials
            )
        except KeyboardInterrupt:
            output.print_note(f"Stopped after {finished_count} trials. Run the same command again to continue.")
            raise
    with output.show_progress() as report, threads.limit_to_one_thread():  # like the trials
        trained = training.run(
            project.app, {**options.fixed, **result.best.parameters}, progress=report, must_be_savable=True
        )
        return result, project.store.put(trained, git=read_git_state(project.root), tuning=result.record())


def _tune_on_flyte(project: Project, options: Options) -> tuple[SearchResult, ModelVersion]:
    engine = open_project_engine(project)
    from mlapp.flyte.remote_search import check_remote_search, choose_remote_search_metric, search_on_flyte

    check_remote_search(project.app, options)
    metric = choose_remote_search_metric(project.store, project.name, options.metric)
    output.print_note(f"trials are compared by {metric}")
    registration = register_remote_project(engine)
    resume_command = "the same `mlapp tune --remote`"
    started_runs: list[Run] = []
    with show_trial_table() as show_trials:
        result = search_on_flyte(
            engine,
            project.app,
            options,
            metric,
            registration,
            follow=lambda run: follow_remote_run(engine, run, resume_command),
            started=lambda run: started_runs.append(announce_remote_run(run)),
            on_update=show_trials,
        )
    values = {**options.fixed, **result.best.parameters}
    data_of = started_runs[0].id if started_runs else None  # an interrupted search can have no trials left
    run = announce_remote_run(engine.start_run("train", values, registration, tuning=result.record(), data_of=data_of))
    follow_remote_run(engine, run.id)
    return result, fetch_remote_model(engine, run.id)


def _load_tuned_app(root: Path, environment: str | None) -> App:
    from mlapp.project import Project

    return Project.find(root, environment).app


@contextmanager
def show_trial_table() -> Iterator[Callable[[SearchResult], None]]:
    """Show the best trials so far: a live table on a terminal, one line per finished trial elsewhere."""
    lines = _TrialLines()
    if not sys.stderr.isatty():
        yield lambda result: lines.print_new_trials(result, only_failed=False)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    with Live(console=Console(stderr=True, markup=False), transient=True) as live:

        def update_trial_table(result: SearchResult) -> None:
            lines.print_new_trials(result, only_failed=True)
            columns, rows = _format_tuning_rows(result)
            table = Table(*columns, title=f"{len(result.trials)} trials")
            for row in rows:
                table.add_row(*map(output.format_table_cell, row))
            live.update(table)

        yield update_trial_table


class _TrialLines:
    """Prints a line for each trial once, and each traceback once."""

    def __init__(self) -> None:
        self._printed_trials: set[int] = set()
        self._printed_traces: set[str] = {""}

    def print_new_trials(self, result: SearchResult, *, only_failed: bool) -> None:
        for trial in result.trials:
            if trial.number in self._printed_trials:
                continue
            self._printed_trials.add(trial.number)
            if trial.state == "failed":
                self._print_failure(trial)
            elif not only_failed:
                value = "" if trial.value is None else f", {result.metric} {trial.value:.4g}"
                output.print_note(f"trial {trial.number} {trial.state}{value}")

    def _print_failure(self, trial: Trial) -> None:
        if trial.trace not in self._printed_traces:
            self._printed_traces.add(trial.trace)
            output.print_note(trial.trace)
        output.print_note(f"trial {trial.number} failed{f': {trial.error}' if trial.error else ''}")


def _print_tuning_result(result: SearchResult) -> None:
    output.print_table(*_format_tuning_rows(result))


def _format_tuning_rows(result: SearchResult) -> tuple[list[str], list[list[Any]]]:
    ranked = result.rank_trials()[:5]
    names = list(dict.fromkeys(name for trial in ranked for name in trial.parameters))
    rows = [[trial.number, trial.value, *(trial.parameters.get(name) for name in names)] for trial in ranked]
    return ["trial", result.metric, *names], rows
