"""Runs the user's WSGI site (Flask, Django) with the model in it, under gunicorn instead of mlapp's server."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path
from typing import NoReturn

from mlapp.app_location import locate_app, locate_app_import_paths
from mlapp.errors import ConfigError
from mlapp.project import Project
from mlapp.serving.serve_spec import ServeSpec
from mlapp.temporary_folders import create_process_folder

GUNICORN = "mlapp.serving.process.gunicorn_master"
"""The module that starts gunicorn."""
WITH_CONTROL = 25
"""The first version of gunicorn with a control socket, which it would create in an image's read-only folder."""
THREADS = 8
"""Concurrent requests of one process, so that a probe does not wait for a prediction."""


def run_wsgi_site(place: str, plan: ServeSpec, project: Project) -> NoReturn:
    """Replace this process by gunicorn.

    Args:
        place: `serve.wsgi`, such as `web.py:site`.

    Raises:
        ConfigError: no such file, no name after the colon, or gunicorn is not installed.
    """
    command = make_gunicorn_command(place, plan, project)
    os.chdir(project.root)
    os.execve(command[0], command, {**os.environ, **make_wsgi_site_environment(plan, project)})  # noqa: S606


def make_gunicorn_command(place: str, plan: ServeSpec, project: Project) -> list[str]:
    """gunicorn's command line for the settings of `serve:`.

    Raises:
        ConfigError: as for `run_wsgi_site`.
    """
    location, settings = locate_app(place, project.root), plan.settings
    if not location.file.is_file():
        raise ConfigError(f"serve.wsgi: there is no {location.file}.", "Name the site as `web.py:site`.")
    if not location.variable:
        raise ConfigError(
            f"serve.wsgi: '{place}' names a file, but no object in it.", "Add the name after a colon: `web.py:site`."
        )
    if importlib.util.find_spec("gunicorn") is None:
        raise ConfigError(
            "serve.wsgi needs gunicorn, which is not installed.",
            "Add gunicorn to requirements.txt, and install it: pip install -r requirements.txt.",
        )
    paths = locate_app_import_paths(project.root, location)
    command = [sys.executable, "-m", GUNICORN, f"--bind={settings.host}:{settings.port}"]
    command += [f"--workers={settings.workers}", "--worker-class=gthread", f"--threads={THREADS}"]
    command += [f"--graceful-timeout={max(1, round(settings.drain))}", f"--pythonpath={','.join(paths)}"]
    if int(importlib.metadata.version("gunicorn").partition(".")[0]) >= WITH_CONTROL:
        command.append("--no-control-socket")
    if settings.access_log:
        command.append("--access-logfile=-")
    if settings.tls_cert and settings.tls_key:
        command += [f"--certfile={settings.tls_cert}", f"--keyfile={settings.tls_key}"]
    if plan.reload:
        command.append("--reload")
    return [*command, f"{location.module}:{location.variable}"]


def make_wsgi_site_environment(plan: ServeSpec, project: Project) -> dict[str, str]:
    """Variables that tell the site's App about the bundle: it reads only mlapp.yaml."""
    variables: dict[str, str] = {}
    if plan.settings.workers > 1 and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        variables["PROMETHEUS_MULTIPROC_DIR"] = str(create_process_folder("metrics", keep_after_exec=True))
    if plan.bundle is not None:
        variables["MLAPP_STORE__URL"] = str(Path(project.settings.store.url).resolve())
        if project.settings.monitor.url:
            variables["MLAPP_MONITOR__URL"] = project.settings.monitor.url
    return variables
