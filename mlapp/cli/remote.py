"""What commands with `--remote` share: the engine, the steps before a run, and following it."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlapp.cli import output

if TYPE_CHECKING:
    from mlapp.flyte.interface import Engine, Registration, Run
    from mlapp.project import Project

Remote = Annotated[bool, typer.Option("--remote", help="Run on Flyte, and fetch the result.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="With --remote: start it, and do not follow.")]


def open_engine(project: Project | None = None) -> Engine:
    """The engine of the current project.

    Raises:
        MissingExtraError: flytekit is not installed.
    """
    from mlapp.flyte import require

    require()
    from mlapp.flyte.engine import FlytekitEngine
    from mlapp.project import Project

    return FlytekitEngine(project or Project.find())


def register(engine: Engine) -> Registration:
    """Build what changed, and register what is new.

    Raises:
        FlyteError: Flyte refused.
    """
    image = engine.build(output.note)
    registration = engine.register(image, output.note)
    if registration.created:
        output.note(f"registered version {registration.version}")
    return registration


def started(run: Run) -> Run:
    """Say which run was started, and where to look at it."""
    output.note(f"run {run.id}: {run.url}")
    return run


def follow(engine: Engine, run: str, back: str | None = None) -> Run:
    """Follow a run to its end. Ctrl-C leaves it running, and says how to come back.

    Args:
        back: the command to come back with, where it is not `mlapp runs wait`.

    Raises:
        RunFailedError: it failed; the traceback of the user's function is printed before.
    """
    from mlapp.flyte.errors import RunFailedError

    told: dict[str, str] = {}

    def tell(current: Run) -> None:
        for step in current.steps:
            if told.get(step.name) != step.phase:
                told[step.name] = step.phase
                seconds = f" ({step.seconds:.1f} s)" if step.seconds and step.phase != "running" else ""
                output.note(f"{step.name}: {step.phase}{', from the cache' if step.cached else ''}{seconds}")

    try:
        return engine.watch(run, tell, output.note)
    except RunFailedError as error:
        if error.trace:
            output.note(error.trace)
        raise
    except KeyboardInterrupt:
        back = back or f"mlapp runs wait {run}"
        output.note(f"\nThe run goes on. Come back: {back}. Stop it: mlapp runs abort {run}")
        sys.exit(130)


def summary(run: Run) -> dict[str, Any]:
    """A run as JSON."""
    return dataclasses.asdict(run)
