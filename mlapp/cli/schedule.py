"""`mlapp schedule`: training and batch prediction on a clock"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.remote import open_remote_project
from mlapp.errors import DeclarationError, ProjectError, UserCodeError

cli = typer.Typer(help="Scheduled training and batch prediction on Flyte.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of the schedule in app.schedule.")]


@cli.command("list")
def list_schedules(environment: Environment = None, json: Json = False) -> None:
    """List the app's schedules and whether they are active.

    Example:

      mlapp schedule list
    """
    engine = open_remote_project(environment)
    try:
        schedules = engine.list_schedules()
    except (ProjectError, UserCodeError, DeclarationError) as error:
        output.print_note(f"The app cannot be read, so only deployed schedules are listed: {error.what}")
        schedules = engine.deployed_schedules()
    if json:
        output.print_json(schedules)
        return
    output.print_table(
        ["schedule", "when (UTC)", "state", "promote_if", "version"],
        [
            [
                schedule.name,
                schedule.when,
                "active" if schedule.active else "inactive" if schedule.version else "not deployed",
                schedule.promote_if,
                schedule.version,
            ]
            for schedule in schedules
        ],
    )
    if not schedules:
        output.print_note("The app declares no schedule. Declare one: app.schedule('nightly', cron='0 3 * * *').")


@cli.command("activate")
def activate_schedule(name: Name, environment: Environment = None) -> None:
    """Activate a schedule.

    Example:

      mlapp schedule activate nightly
    """
    state = open_remote_project(environment).switch_schedule(name, True)
    output.print_note(f"{name} is active: {state.when}.")


@cli.command("deactivate")
def deactivate_schedule(name: Name, environment: Environment = None) -> None:
    """Deactivate a schedule.

    It stays inactive when the app is deployed again.

    Example:

      mlapp schedule deactivate nightly
    """
    open_remote_project(environment).switch_schedule(name, False)
    output.print_note(f"{name} is inactive. Activate it again: mlapp schedule activate {name}")


@cli.command("runs")
def list_schedule_runs(
    name: Name,
    fetch: Annotated[
        bool,
        typer.Option("--fetch", help="Store the models, or write the predictions, of successful runs."),
    ] = False,
    limit: Annotated[int, typer.Option(help="Maximum number of runs.")] = 20,
    environment: Environment = None,
    json: Json = False,
) -> None:
    """List a schedule's runs, newest first.

    With a store in a bucket, the runs have stored their models. With a local store, `--fetch` stores them, oldest
    first, and promotes those that are better by the schedule's `promote_if`. For a schedule that predicts, `--fetch`
    writes each run's predictions to SCHEDULE-RUN.parquet in the current folder.

    Example:

      mlapp schedule runs nightly --fetch
    """
    here = Path.cwd()  # loading the app changes to the project's folder
    engine = open_remote_project(environment)
    runs = engine.list_runs(limit=limit, schedule=name)
    if fetch:
        for run in reversed(runs):
            if run.phase == "succeeded":
                if run.workflow.endswith(".predict"):
                    file = f"{name}-{run.id}.parquet"
                    engine.fetch_predictions(run.id).to_parquet(here / file)
                    output.print_note(f"{file} has the predictions of {run.id}")
                    continue
                version = engine.fetch_model(run.id, schedule=name)
                output.print_note(f"{run.id} is version {version.version}")
    if json:
        output.print_json(runs)
        return
    output.print_table(
        ["run", "phase", "started", "seconds"],
        [[run.id, run.phase, f"{run.started:%Y-%m-%d %H:%M}" if run.started else "", run.seconds] for run in runs],
    )
