"""`mlapp runs`: executions on Flyte"""

from __future__ import annotations

from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.remote import follow, open_project, summary

cli = typer.Typer(help="Runs on Flyte: look, wait, fetch, stop.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="The run's id, as `mlapp runs list` shows it.")]


@cli.command("list")
def list_runs(
    limit: Annotated[int, typer.Option(help="How many.")] = 20, environment: Environment = None, json: Json = False
) -> None:
    """List the app's latest runs, the newest first.

    Example:

      mlapp runs list --limit 5
    """
    runs = open_project(environment).runs(limit=limit)
    if json:
        output.json([summary(run) for run in runs])
        return
    output.table(
        ["run", "workflow", "phase", "started", "seconds", "schedule"],
        [
            [
                run.id,
                run.workflow,
                run.phase,
                f"{run.started:%Y-%m-%d %H:%M}" if run.started else "",
                run.seconds,
                run.schedule,
            ]
            for run in runs
        ],
    )
    if not runs:
        output.note("There are no runs yet. Start one: mlapp train --remote")


@cli.command()
def show(run: Id, environment: Environment = None, json: Json = False) -> None:
    """Show a run and each of its tasks; of one that failed, why.

    Example:

      mlapp runs show abc123
    """
    engine = open_project(environment)
    found = engine.show(run)
    if json:
        output.json(summary(found))
        return
    output.table(
        ["task", "phase", "seconds", ""],
        [[step.name, step.phase, step.seconds, "cached" if step.cached else ""] for step in found.steps],
    )
    output.note(f"{found.workflow} {found.phase}: {found.url}")
    if found.phase in ("failed", "aborted"):
        error = engine.failure(found)
        if error.trace:
            output.note(error.trace)
        output.note(f"{error.what}\n{error.todo}")


@cli.command()
def wait(run: Id, environment: Environment = None, json: Json = False) -> None:
    """Follow a run to its end.

    Its model goes into the store, or its predictions are printed. The trials of a search go to `mlapp tune --remote`.

    Example:

      mlapp runs wait f3c0d7
    """
    engine = open_project(environment)
    done = follow(engine, run)
    if done.workflow.endswith(".tune"):
        output.note("Its trials are done. Go on with the same `mlapp tune --remote` as before.")
        return
    if done.workflow.endswith(".predict"):
        output.json(engine.predictions(run).to_dict("records"))
        return
    version = engine.fetch(run)
    if json:
        output.json(version.manifest)
        return
    output.note(f"{version.app} version {version.version} is in the store. Next: mlapp serve")


@cli.command()
def abort(
    run: Id,
    reason: Annotated[str, typer.Option(help="Is kept with the run.")] = "aborted with mlapp",
    environment: Environment = None,
) -> None:
    """Stop a run.

    Example:

      mlapp runs abort abc123
    """
    open_project(environment).abort(run, reason)
    output.note(f"Run {run} is being stopped.")


@cli.command()
def logs(run: Id, environment: Environment = None, json: Json = False) -> None:
    """Say where the logs of each task are.

    Flyte keeps links, and the cluster the logs.

    Example:

      mlapp runs logs abc123
    """
    found = open_project(environment).logs(run)
    if json:
        output.json([{"task": task, "url": url} for task, url in found])
        return
    output.table(["task", "logs"], found)
    if not found:
        output.note("Flyte links to no logs. Whoever runs it can set this up: plugins.logs in its configuration.")
