"""The subcommands of `mlapp`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mlapp.cli import (
    build,
    canary,
    data,
    delete,
    deploy,
    doctor,
    eject,
    export,
    feedback,
    init,
    logs,
    models,
    monitor,
    output,
    predict,
    releases,
    rollback,
    runs,
    schedule,
    serve,
    status,
    train,
    tune,
)
from mlapp.cli.target_options import TargetCommand
from mlapp.errors import UsageError

HELP = """From an empty folder to a monitored model endpoint on Kubernetes.

Start with: mlapp init digits && cd digits && mlapp train && mlapp serve"""

cli = typer.Typer(
    name="mlapp",
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cli.command("init")(init.init_project)
cli.command("train")(train.train_model)
cli.command("tune")(tune.tune_model)
cli.command("predict", cls=TargetCommand)(predict.print_predictions)
cli.command("export")(export.export_model)
cli.command("serve")(serve.serve_model)
cli.command("build")(build.build_image)
cli.command("deploy", cls=TargetCommand)(deploy.deploy_app)
cli.command("status", cls=TargetCommand)(status.show_status)
cli.command("logs", cls=TargetCommand)(logs.print_logs)
cli.command("releases", cls=TargetCommand)(releases.list_releases)
cli.command("rollback", cls=TargetCommand)(rollback.roll_back)
cli.command("promote", cls=TargetCommand)(canary.promote_canary)
cli.command("abort", cls=TargetCommand)(canary.abort_canary)
cli.command("delete", cls=TargetCommand)(delete.delete_app)
cli.add_typer(eject.cli, name="eject")
cli.add_typer(models.cli, name="models")
cli.add_typer(data.cli, name="data")
cli.add_typer(runs.cli, name="runs")
cli.add_typer(schedule.cli, name="schedule")
cli.add_typer(monitor.cli, name="monitor")
cli.command("feedback")(feedback.send_feedback)
cli.command("doctor")(doctor.diagnose_machine)


def _print_version(is_given: bool) -> None:
    if is_given:
        from mlapp import distribution

        output.print_result(f"mlapp {distribution.version() or 'unknown'}")
        raise typer.Exit


@cli.callback()
def change_folder(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. Can also follow a command.")
    ] = False,
    directory: Annotated[
        Path | None, typer.Option("-C", metavar="DIR", help="Run the command in this folder.", show_default=False)
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print mlapp's version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Change to the folder of -C. The other options take effect before this function runs."""
    if directory is not None:
        if not directory.is_dir():
            raise UsageError(f"-C {directory}: no such folder.", "Give the folder of a project.")
        os.chdir(directory)
