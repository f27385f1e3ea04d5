"""`manage.py mlapp`: mlapp's commands inside the site, so that an app's functions can use Django's models."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from mlapp.cli.main import run
from mlapp.django.site_settings import find_app_file, read_site_settings
from mlapp.errors import MlappError


class Command(BaseCommand):
    """Runs an mlapp command for the app that `MLAPP` names."""

    help = (
        "Run an mlapp command for the app in MLAPP, such as `manage.py mlapp train`. The app can use Django's models."
    )
    requires_system_checks = ()
    """Empty, because the check reports a missing version, and `manage.py mlapp train` creates it."""

    def run_from_argv(self, argv: list[str]) -> None:
        """Pass all flags to mlapp."""
        try:
            _run_in_app_project(argv[2:])
        except MlappError as error:
            self.stderr.write(f"{error.what}\n{error.todo}")
            raise SystemExit(error.exit_code) from None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "arguments", nargs=argparse.REMAINDER, help="Arguments of mlapp; --help lists the commands."
        )

    def handle(self, *arguments: str, **options: Any) -> None:
        """For `call_command("mlapp", "train")`."""
        try:
            _run_in_app_project([*arguments, *options.get("arguments", ())])
        except MlappError as error:
            raise CommandError(f"{error.what} {error.todo}", returncode=error.exit_code) from error
        except SystemExit as end:
            if end.code:
                raise CommandError(f"mlapp ended with exit code {end.code}.", returncode=int(end.code)) from end


def _run_in_app_project(arguments: list[str]) -> None:
    """Run the command in the app's project, then restore the process's folder and variables."""
    site = read_site_settings()
    file = find_app_file(site)
    if file is None:
        run(arguments)
        return
    here, variables = Path.cwd(), dict(os.environ)
    os.environ.setdefault("MLAPP_APP", f"{file}:{site.variable}")
    try:
        run(["-C", str(file.parent), *arguments])
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(variables)
