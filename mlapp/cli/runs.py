"""`mlapp runs`: executions on Flyte"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.remote import (
    announce_remote_run,
    follow_remote_run,
    open_remote_project,
    print_remote_run_id,
)

if TYPE_CHECKING:
    from mlapp.flyte.interface import TaskRun

cli = typer.Typer(help="Runs on Flyte: list, follow, fetch, stop.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="Id of the run, from `mlapp runs list`.")]


@cli.command("list")
def list_runs(
    limit: Annotated[int, typer.Option(help="Maximum number of runs.")] = 20,
    environment: Environment = None,
    json: Json = False,
) -> None:
    """List the app's latest runs, newest first.

    Example:

      mlapp runs list --limit 5
    """
    runs = open_remote_project(environment).list_runs(limit=limit)
    if json:
        output.print_json(runs)
        return
    output.print_table(
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
        output.print_note("There are no runs yet. Start one: mlapp train --remote")


@cli.command("show")
def show_run(run: Id, environment: Environment = None, json: Json = False) -> None:
    """Show a run, its tasks and the reason for each failure.

    Example:

      mlapp runs show abc123
    """
    engine = open_remote_project(environment)
    details = engine.read_run(run)
    if json:
        output.print_json(details)
        return
    output.print_table(
        ["task", "phase", "seconds", ""],
        [[task.name, task.phase, task.seconds, _format_run_note(task)] for task in details.steps],
    )
    output.print_note(f"{details.workflow} {details.phase}: {details.url}")
    if details.phase in ("failed", "aborted"):
        error = engine.explain_failure(details)
        if error.trace:
            output.print_note(error.trace)
        output.print_note(f"{error.what}\n{error.todo}")


def _format_run_note(task: TaskRun) -> str:
    return "cached" if task.cached else f"waits: {task.waits_for}" if task.waits_for else ""


@cli.command("wait")
def wait_for_run(run: Id, environment: Environment = None, json: Json = False) -> None:
    """Follow a run to its end.

    Stores the model of the run, or prints its predictions. For a search, continue with `mlapp tune --remote`.

    Example:

      mlapp runs wait f3c0d7
    """
    engine = open_remote_project(environment)
    done = follow_remote_run(engine, run)
    if done.workflow.endswith((".tune", ".tune_split")):
        output.print_note("The trials of this run are done. Continue with the same `mlapp tune --remote` command.")
        return
    if done.workflow.endswith(".predict"):
        output.print_json(engine.fetch_predictions(run).to_dict("records"))
        return
    version = engine.fetch_model(run)
    if json:
        output.print_json(version.manifest)
        return
    output.print_note(f"{version.app} version {version.version} is in the store. Next: mlapp serve")


@cli.command("abort")
def abort_run(
    run: Id,
    reason: Annotated[str, typer.Option(help="Reason that is stored with the run.")] = "aborted with mlapp",
    environment: Environment = None,
) -> None:
    """Stop a run.

    Example:

      mlapp runs abort abc123
    """
    open_remote_project(environment).abort_run(run, reason)
    output.print_note(f"Run {run} is being stopped.")


@cli.command("recover")
def recover_run(
    run: Id,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the new run's id and exit.")] = False,
    environment: Environment = None,
    json: Json = False,
) -> None:
    """Start a failed run again from its first failed task.

    Reuses the results of the tasks that succeeded. The failed tasks and all later ones run again.

    Example:

      mlapp runs recover abc123
    """
    engine = open_remote_project(environment)
    new_run = announce_remote_run(engine.recover(run))
    if no_wait:
        print_remote_run_id(new_run, json=json)
        return
    wait_for_run(new_run.id, environment, json)


@cli.command("logs")
def print_run_logs(run: Id, environment: Environment = None, json: Json = False) -> None:
    """Print links to the logs of each task, or the logs.

    Flyte has links if its operator configured them. Without links, mlapp reads the pods' logs with your kubeconfig.

    Example:

      mlapp runs logs abc123
    """
    engine = open_remote_project(environment)
    links = engine.list_logs(run)
    texts = [] if links else list(engine.read_logs(run))
    if json:
        entries = [{"task": task, "url": url} for task, url in links]
        output.print_json(entries + [{"task": task, "text": text} for task, text in texts])
        return
    if texts:
        for task, text in texts:
            output.print_note(f"{task}:")
            output.print_result(text.rstrip("\n"))
        return
    output.print_table(["task", "logs"], links)
    if not links:
        output.print_note(
            "No logs can be shown: Flyte has no links to them, and no kubeconfig gives access to this run's pods. "
            "Ask Flyte's operator to configure links: plugins.logs in Flyte's configuration."
        )
