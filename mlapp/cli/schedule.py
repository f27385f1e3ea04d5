"""`mlapp schedule`: training and batch prediction on a clock"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.remote import open_project, summary
from mlapp.errors import DeclarationError, ProjectError, UserCodeError

cli = typer.Typer(help="Training and batch prediction on a clock, on Flyte.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The schedule's name, as app.schedule gives it.")]


@cli.command("list")
def list_schedules(environment: Environment = None, json: Json = False) -> None:
    """List the app's schedules, and whether they are active.

    Example:

      mlapp schedule list
    """
    engine = open_project(environment)
    try:
        found = engine.schedules()
    except (ProjectError, UserCodeError, DeclarationError) as error:
        output.note(f"What the app declares is not known, only what is deployed: {error.what}")
        found = engine.deployed_schedules()
    if json:
        output.json([dataclasses.asdict(state) for state in found])
        return
    output.table(
        ["schedule", "when (UTC)", "state", "promote_if", "version"],
        [
            [
                state.name,
                state.when,
                "active" if state.active else "inactive" if state.version else "not deployed",
                state.promote_if,
                state.version,
            ]
            for state in found
        ],
    )
    if not found:
        output.note("The app declares no schedule: app.schedule('nightly', cron='0 3 * * *').")


@cli.command()
def activate(name: Name, environment: Environment = None) -> None:
    """Switch a schedule on.

    Example:

      mlapp schedule activate nightly
    """
    state = open_project(environment).schedule(name, True)
    output.note(f"{name} is active: {state.when}.")


@cli.command()
def deactivate(name: Name, environment: Environment = None) -> None:
    """Switch a schedule off.

    It stays off when the app is deployed again.

    Example:

      mlapp schedule deactivate nightly
    """
    open_project(environment).schedule(name, False)
    output.note(f"{name} is inactive. Switch it on again: mlapp schedule activate {name}")


@cli.command()
def runs(
    name: Name,
    fetch: Annotated[
        bool,
        typer.Option(
            "--fetch", help="Take the models of runs that succeeded into the store, or write their predictions."
        ),
    ] = False,
    limit: Annotated[int, typer.Option(help="How many.")] = 20,
    environment: Environment = None,
    json: Json = False,
) -> None:
    """List a schedule's runs, the newest first.

    A store that the cluster reaches has their models already. For a local one, `--fetch` takes them in, the oldest
    first, and promotes those that are better by the schedule's `promote_if`. Of a schedule that predicts, it writes
    each run's predictions to SCHEDULE-RUN.parquet in the current folder.

    Example:

      mlapp schedule runs nightly --fetch
    """
    here = Path.cwd()  # loading the app changes to the project's folder
    engine = open_project(environment)
    found = engine.runs(limit=limit, schedule=name)
    if fetch:
        for run in reversed(found):
            if run.phase == "succeeded":
                if run.workflow.endswith(".predict"):
                    file = f"{name}-{run.id}.parquet"
                    engine.predictions(run.id).to_parquet(here / file)
                    output.note(f"{file} has the predictions of {run.id}")
                    continue
                version = engine.fetch(run.id, schedule=name)
                output.note(f"{run.id} is version {version.version}")
    if json:
        output.json([summary(run) for run in found])
        return
    output.table(
        ["run", "phase", "started", "seconds"],
        [[run.id, run.phase, f"{run.started:%Y-%m-%d %H:%M}" if run.started else "", run.seconds] for run in found],
    )
