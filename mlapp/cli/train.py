"""`mlapp train`"""

from __future__ import annotations

import enum
import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.parameters import Parameters, ParametersFile, read_command_parameters
from mlapp.cli.remote import (
    NoWait,
    Remote,
    announce_remote_run,
    fetch_remote_model,
    follow_remote_run,
    print_remote_run_id,
    register_remote_project,
)
from mlapp.engines import open_project_engine
from mlapp.errors import UsageError

if TYPE_CHECKING:
    from mlapp.config import Monitor
    from mlapp.flyte.interface import Engine as RemoteEngine
    from mlapp.project import Project
    from mlapp.store import Manifest, ModelVersion


FEW_ROWS = 20
"""Tables with fewer rows give metrics by chance."""


class Engine(str, enum.Enum):
    """The local engine that runs the pipeline."""

    LOCAL = "local"
    FLYTE_LOCAL = "flyte-local"


def train_model(
    parameter: Parameters = None,
    params: ParametersFile = None,
    like: Annotated[
        str | None, typer.Option("--like", help="Reuse the parameters of a version, an alias or `latest`.")
    ] = None,
    environment: Environment = None,
    engine: Annotated[
        Engine, typer.Option(help="How to run on this machine: directly, or as the compiled Flyte workflow.")
    ] = Engine.LOCAL,
    start_from: Annotated[
        str | None, typer.Option("--from", help="Continue training from a version, an alias or `latest`.")
    ] = None,
    remote: Remote = False,
    no_wait: NoWait = False,
    run_id: Annotated[
        str | None,
        typer.Option("--run-id", help="With --remote: ID of the run. A repeated command follows this run."),
    ] = None,
    json: Json = False,
) -> None:
    """Train a new version of the model, here or on Flyte.

    Examples:

      mlapp train

      mlapp train -p C=0.1 -p limit=500

      mlapp train --params run.yaml -p hp.C=0.1

      mlapp train --like 3

      mlapp train --from latest -p day=2026-01-31

      mlapp train --remote
    """
    from mlapp.monitoring.place import check_place
    from mlapp.project import Project
    from mlapp.store.manifest import list_manifest_parameters

    values = read_command_parameters(params, parameter)
    _refuse_contradictory_train_options(engine, start_from, run_id, remote=remote, no_wait=no_wait)
    project = Project.find(environment=environment)
    project.store.check_writable()
    check_place(project.settings.monitor, project.store, project.root, project.app.name)
    if like is not None:
        manifest = project.store.get(project.name, like).manifest
        values = {**list_manifest_parameters(manifest), **values}
        if manifest.parent is not None and start_from is None and not remote:
            start_from = str(manifest.parent)
            output.print_note(
                f"version {manifest.version} continued from version {manifest.parent}, so this training does too"
            )
    if remote:
        version = _train_on_flyte(project, values, is_followed=not no_wait, run_id=run_id, json=json)
    elif engine is Engine.FLYTE_LOCAL:
        version = _train_flyte_local(project, values)
    else:
        version = _train_here(project, values, start_from)
    if version is None:
        return
    if json:
        output.print_json(version.manifest)
        return
    _warn_about_monitor_settings(project.settings.monitor, version.manifest)
    _print_trained_version(version)
    rows = version.manifest.data.rows
    if rows < FEW_ROWS and version.manifest.metrics:
        output.print_note(f"The metrics come from a table of only {rows} rows, so they say little about new rows.")


def _refuse_contradictory_train_options(
    engine: Engine, start_from: str | None, run_id: str | None, *, remote: bool, no_wait: bool
) -> None:
    if remote and engine is not Engine.LOCAL:
        raise UsageError(
            "--remote and --engine are both given.", "Give --remote to run on Flyte, --engine to run here."
        )
    if no_wait and not remote:
        raise UsageError(
            "--no-wait is given without --remote.", "Add --remote: only a run on Flyte continues without this command."
        )
    if run_id is not None and not remote:
        raise UsageError("--run-id is given without --remote.", "Add --remote: only a run on Flyte has an ID.")
    if start_from is not None and (remote or engine is not Engine.LOCAL):
        option = "--remote" if remote else f"--engine {engine.value}"
        raise UsageError(f"--from cannot be used with {option}.", f"Continue training here, without {option}.")


def _warn_about_monitor_settings(settings: Monitor, manifest: Manifest) -> None:
    """Warn about columns and metrics that the model does not have, and settings without effect."""
    from mlapp.training.monitored_names import (
        find_idle_monitored_settings,
        find_unknown_monitored_columns,
        find_unknown_monitored_metrics,
    )

    unknown = find_unknown_monitored_columns(settings, manifest.schema.features)
    unknown += find_unknown_monitored_metrics(settings, manifest.headline)
    for error in unknown + find_idle_monitored_settings(settings):
        output.print_warning(f"{error.what} {error.todo}")


def _print_trained_version(version: ModelVersion) -> None:
    splits = version.manifest.metrics
    if not splits:
        output.print_note(
            f"{version.app} version {version.version} is in the store, without metrics. Next: mlapp serve"
        )
        return
    columns = list(dict.fromkeys(name for metrics in splits.values() for name in metrics))
    output.print_table(["split", *columns], [[split, *map(metrics.get, columns)] for split, metrics in splits.items()])
    output.print_note(f"{version.app} version {version.version} is in the store. Next: mlapp serve")


def _train_here(project: Project, values: dict[str, Any], start_from: str | None) -> ModelVersion:
    from mlapp import training
    from mlapp.provenance import read_git_state

    app = project.app
    parent = None if start_from is None else project.store.get(app.name, start_from)
    with output.show_progress() as report:
        trained = training.run(app, values, progress=report, previous=parent, must_be_savable=True)
        report("save")
        return project.store.put(trained, git=read_git_state(project.root), progress=report)


def _train_flyte_local(project: Project, values: dict[str, Any]) -> ModelVersion:
    with output.show_progress() as report:
        return open_project_engine(project).run_here(values, report)


def _train_on_flyte(
    project: Project, values: dict[str, Any], *, is_followed: bool, run_id: str | None, json: bool
) -> ModelVersion | None:
    engine = open_project_engine(project)
    options: dict[str, Any] = {} if run_id is None else {"run_id": run_id}
    if options and not _can_set_run_id(engine):
        raise UsageError(
            f"--run-id cannot be used with the engine '{project.settings.engine}': it names its runs itself.",
            "Leave out --run-id, or install a version of the engine's package that supports run IDs.",
        )
    registration = register_remote_project(engine)
    started = engine.start_run("train", values, registration, **options)
    run = announce_remote_run(started)
    if not is_followed:
        print_remote_run_id(run, json=json)
        return None
    follow_remote_run(engine, run.id)
    return fetch_remote_model(engine, run.id)


def _can_set_run_id(engine: RemoteEngine) -> bool:
    """Whether an engine accepts the ID of a run. Engines of older plugins do not."""
    parameters = inspect.signature(engine.start_run).parameters
    return "run_id" in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())
