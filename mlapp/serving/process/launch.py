"""From a plan to a running server, in this process."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlapp.errors import ConfigError, UsageError
from mlapp.project import Project, load_attribute
from mlapp.project_modules import ProjectModules
from mlapp.serving import routes
from mlapp.serving.application import Application
from mlapp.serving.asgi import make_endpoint
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.inference.version_watcher import VersionWatcher
from mlapp.serving.observability.tracing import tracing_from_environment
from mlapp.serving.process import monitoring
from mlapp.serving.process.server import run_server
from mlapp.serving.serve_spec import ServeSpec

Told = Callable[[list[str]], None]


def launch_server(plan: ServeSpec, listener: socket.socket, ready: Told, *, has_parent: bool = False) -> None:
    """Load the models and serve them until the process is asked to stop.

    Args:
        ready: gets a line for each model when connections are accepted.
        has_parent: stop when standard input ends, because the parent has ended.

    Raises:
        MlappError: an app cannot be imported, or a model cannot be loaded or cannot predict.
    """
    made = build_application(plan)

    def announce_start() -> None:
        ready([line for endpoint in made.endpoints for line in _announcement_lines(endpoint)])

    run_server(made, listener, plan.settings, announce_start, has_parent=has_parent)


def build_application(plan: ServeSpec) -> Application:
    """All of the plan's models behind one application; each of several under its name.

    Raises:
        MlappError: an app cannot be imported, a model cannot be loaded, two apps have one name.
    """
    settings = plan.settings
    start = Path.cwd()
    found = plan.open_projects()
    made = Application(
        settings, _load_user_api(plan, found), tracing_from_environment(",".join(project.name for project in found))
    )
    for project in found:
        within = (
            ProjectModules.of_project(project.root, project.import_paths).activate_modules
            if len(found) > 1
            else contextlib.nullcontext
        )
        with within():
            app, store = project.app, project.store
            if any(endpoint.name == app.name for endpoint in made.endpoints):
                raise UsageError(f"Two of the apps are called '{app.name}'.", "Give each App a name of its own.")
            prefix = "" if len(found) == 1 else f"/{app.name}"
            endpoint = make_endpoint(made, app, settings.model, store, settings, prefix)
        monitoring.add(made, endpoint, project, plan.bundle)
        routes.add_endpoint(made, endpoint)
        if plan.reload or settings.model not in ("latest", endpoint.current.version):
            follower = VersionWatcher(endpoint, store, settings.model, within)
            made.on_start.append(follower.start_watching)
            made.on_close.append(follower.stop_watching)
    if settings.grpc_port is not None:
        from mlapp.serving.protocols.grpc import GrpcServer

        server = GrpcServer(made, settings)
        made.on_start.append(server.start_server)
        made.on_close.append(server.stop_server)
    if len(found) > 1:
        os.chdir(start)
    return made


def _load_user_api(plan: ServeSpec, found: Sequence[Project]) -> Any:
    """The user's own application: of the project, or, for several, in the current folder.

    Raises:
        ConfigError: it is none. ProjectError: it is not there.
    """
    place = plan.settings.api
    if place is None:
        return None
    if len(found) == 1:
        _ = found[0].app  # first: it goes to the project's folder, and the application may import it
        api = load_attribute(place, found[0].root)
    else:
        api = load_attribute(place, Path.cwd())
    if not callable(api):
        raise ConfigError(
            f"serve.api: {place} is a {type(api).__name__}, not an ASGI application.", "Name a FastAPI object."
        )
    return api


def _announcement_lines(endpoint: Endpoint) -> list[str]:
    version = endpoint.current.version
    warnings = [f"Warning: {endpoint.name}: {difference}" for difference in endpoint.current.list_differences()]
    return [*warnings, f"{endpoint.name} version {version} answers at {{url}}{endpoint.prefix}/"]
