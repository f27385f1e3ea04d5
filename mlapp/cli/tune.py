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
from mlapp.cli.parameters import Parameters, parse

if TYPE_CHECKING:
    from mlapp.app import App
    from mlapp.tuning import Found


def tune(
    trials: Annotated[int, typer.Option(min=1, help="Trials in all; run again, the search goes on.")] = 20,
    metric: Annotated[str | None, typer.Option(help="Metric of the evaluator; its first one when absent.")] = None,
    minimize: Annotated[
        bool | None, typer.Option("--minimize/--maximize", help="Which is better; by the metric's name when absent.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation.")] = 3,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; as many as cores when absent.")] = None,
    parameter: Parameters = None,
    environment: Environment = None,
    json: Json = False,
) -> None:
    """Search the parameters that the app declares.

    The best ones become a new model version.

    Examples:

      mlapp tune --trials 50

      mlapp tune --metric rmse --folds 5 -p limit=1000
    """
    from mlapp import training, tuning
    from mlapp.environment import git_state
    from mlapp.frameworks import threads
    from mlapp.project import Project

    fixed = parse(parameter)
    project = Project.find(environment=environment)
    app = project.app
    project.store.check_writable()
    folder = project.root / ".mlapp/tuning"
    options = tuning.Options(
        trials=trials, metric=metric, minimize=minimize, folds=folds, workers=workers, fixed=fixed, folder=folder
    )
    with _table() as tell:
        found = tuning.search(partial(_app, project.root, environment), options, tell)
    page = tuning.write_page(found, folder / f"{found.study.study_name}.html")
    with output.progress() as step, threads.single():  # as its trials were trained
        trained = training.run(app, {**fixed, **found.best.parameters}, progress=step)
        version = project.store.put(trained, git=git_state(project.root), tuning=found.record())
    if json:
        output.json(version.manifest)
        return
    _print(found)
    output.note(f"The plots of the {len(found.trials)} trials are in {os.path.relpath(page)}.")
    output.note(f"{app.name} version {version.version} has the parameters of trial {found.best.number}.")


def _app(root: Path, environment: str | None) -> App:
    from mlapp.project import Project

    return Project.find(root, environment).app


@contextmanager
def _table() -> Iterator[Callable[[Found], None]]:
    """The best trials so far: a live table on a terminal, a line a finished trial elsewhere."""
    if not sys.stderr.isatty():
        told: set[int] = set()

        def lines(found: Found) -> None:
            for trial in found.trials:
                if trial.number not in told:
                    told.add(trial.number)
                    value = "" if trial.value is None else f", {found.metric} {trial.value:.4g}"
                    output.note(f"trial {trial.number} {trial.state}{value}")

        yield lines
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    with Live(console=Console(stderr=True)) as live:

        def show(found: Found) -> None:
            columns, rows = _rows(found)
            table = Table(*columns, title=f"{len(found.trials)} trials")
            for row in rows:
                table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
            live.update(table)

        yield show


def _print(found: Found) -> None:
    output.table(*_rows(found))


def _rows(found: Found) -> tuple[list[str], list[list[Any]]]:
    ranked = found.ranked()[:5]
    names = list(dict.fromkeys(name for trial in ranked for name in trial.parameters))
    rows = [[trial.number, trial.value, *(trial.parameters.get(name) for name in names)] for trial in ranked]
    return ["trial", found.metric, *names], rows
