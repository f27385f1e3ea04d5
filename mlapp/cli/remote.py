"""Shared by the commands with `--remote`: the engine, the steps before a run, and following it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlapp.cli import output
from mlapp.engines import open_project_engine
from mlapp.printable_text import make_printable_line

if TYPE_CHECKING:
    from mlapp.flyte.interface import Engine, Registration, Run, TaskRun
    from mlapp.store import ModelVersion

Remote = Annotated[bool, typer.Option("--remote", help="Run on Flyte and fetch the result.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="With --remote: start the run, print its id, and exit.")]


def open_remote_project(environment: str | None) -> Engine:
    """The engine of the current folder's project.

    Raises:
        MissingExtraError: flytekit is not installed.
    """
    from mlapp.project import Project

    return open_project_engine(Project.find(environment=environment))


def register_remote_project(engine: Engine) -> Registration:
    """Build the image if it changed, and register the project's workflows if they changed.

    Raises:
        FlyteError: Flyte refused.
    """
    image = engine.build_image(output.print_note)
    registration = engine.register_project(image, output.print_note)
    if registration.created:
        output.print_note(f"registered version {registration.version}")
    return registration


def announce_remote_run(run: Run) -> Run:
    """Print the ID and URL of the started run."""
    output.print_note(f"run {run.id}: {run.url}")
    return run


def print_remote_run_id(run: Run, *, json: bool = False) -> None:
    """Print the result of a command that does not follow its run: the run's ID, and how to follow it later."""
    if json:
        output.print_json(run)
    else:
        output.print_result(run.id)
    output.print_note(f"Fetch the result later: mlapp runs wait {run.id}")


def follow_remote_run(engine: Engine, run: str, resume_command: str | None = None) -> Run:
    """Follow a run to its end. Ctrl-C leaves it running, and prints how to follow it again.

    Args:
        resume_command: the command that follows it again, if it is not `mlapp runs wait`.

    Raises:
        RunFailedError: the run failed; the traceback of the user's function has been printed.
    """
    from mlapp.flyte.errors import RunFailedError

    try:
        with _show_remote_progress() as report:
            return engine.follow_run(run, report, output.print_note)
    except RunFailedError as error:
        if error.trace:
            output.print_note(error.trace)
        raise
    except KeyboardInterrupt:
        resume_command = resume_command or f"mlapp runs wait {run}"
        output.print_note(f"\nThe run continues. Follow it again: {resume_command}. Stop it: mlapp runs abort {run}")
        sys.exit(130)


def fetch_remote_model(engine: Engine, run: str) -> ModelVersion:
    """Store the model of a successful run.

    Raises:
        UnreachableError: the connection is lost; the message says how to fetch the model later. FlyteError: its files
            have expired.
    """
    from mlapp.flyte.errors import UnreachableError

    try:
        return engine.fetch_model(run)
    except UnreachableError as error:
        raise UnreachableError(error.what, f"The run is done. Fetch its model later: mlapp runs wait {run}") from error


@contextmanager
def _show_remote_progress() -> Iterator[Callable[[Run], None]]:
    """Show the tasks of a run: a line for each change, and on a terminal a clock while a task runs."""
    states = _TaskStates()
    if not sys.stderr.isatty():
        yield lambda run: _print_changed_tasks(states, run)
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as clocks:
        run_clock = clocks.add_task("the run")
        task_clocks: dict[str, Any] = {}

        def update_clocks(run: Run) -> None:
            for task in states.list_changed_tasks(run):
                if task.name in task_clocks and task.phase == "running":
                    clocks.update(task_clocks[task.name], description=_format_remote_task(task))
                elif task.phase == "running":
                    task_clocks[task.name] = clocks.add_task(_format_remote_task(task))
                elif task.phase != "queued":
                    output.print_note(_format_remote_task(task))
                    if task.name in task_clocks:
                        clocks.remove_task(task_clocks.pop(task.name))
            clocks.update(run_clock, description=f"the run: {run.phase}")

        yield update_clocks


class _TaskStates:
    """The last shown state of each task of a run."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[str, str | None]] = {}

    def list_changed_tasks(self, run: Run) -> Iterator[TaskRun]:
        """The tasks whose state differs from the last call's, in order."""
        for task in run.steps:
            if self._shown.get(task.name) != (task.phase, task.waits_for):
                self._shown[task.name] = task.phase, task.waits_for
                yield task


def _print_changed_tasks(states: _TaskStates, run: Run) -> None:
    for task in states.list_changed_tasks(run):
        output.print_note(_format_remote_task(task))


def _format_remote_task(task: TaskRun) -> str:
    if task.phase == "running" and task.waits_for:
        return make_printable_line(f"{task.name} waits: {task.waits_for}")
    seconds = f" ({task.seconds:.1f} s)" if task.seconds and task.phase != "running" else ""
    return f"{task.name}: {task.phase}{', from the cache' if task.cached else ''}{seconds}"
