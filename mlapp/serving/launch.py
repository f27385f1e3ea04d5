"""From a plan to a running server, in this process."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlapp.errors import ConfigError, UsageError
from mlapp.modules import Modules
from mlapp.project import Project, attribute
from mlapp.serving import routes
from mlapp.serving.application import Application
from mlapp.serving.asgi import load
from mlapp.serving.endpoint import Endpoint
from mlapp.serving.plan import Plan
from mlapp.serving.server import run
from mlapp.serving.switching import Follower
from mlapp.serving.tracing import from_environment

Told = Callable[[list[str]], None]


def launch(plan: Plan, listener: socket.socket, ready: Told, *, has_parent: bool = False) -> None:
    """Load the models and serve them until the process is told to stop.

    Args:
        ready: gets a line for each model when connections are accepted.
        has_parent: stop when standard input ends: the parent that held it is gone.

    Raises:
        MlappError: an app cannot be imported, or a model cannot be loaded or cannot predict.
    """
    made = application(plan)

    def tell() -> None:
        ready([line for endpoint in made.endpoints for line in _lines(endpoint)])

    run(made, listener, plan.settings, tell, has_parent=has_parent)


def application(plan: Plan) -> Application:
    """All of the plan's models behind one application; each of several under its name.

    Raises:
        MlappError: an app cannot be imported, a model cannot be loaded, two apps have one name.
    """
    settings = plan.settings
    start = Path.cwd()
    found = plan.projects()
    made = Application(settings, _own(plan, found), from_environment(",".join(project.name for project in found)))
    for project in found:
        within = Modules.of(project.root, project.import_paths).active if len(found) > 1 else contextlib.nullcontext
        with within():
            app, store = project.app, project.store
            if any(endpoint.name == app.name for endpoint in made.endpoints):
                raise UsageError(f"Two of the apps are called '{app.name}'.", "Give each App a name of its own.")
            loaded = load(app, settings.model, store, settings)
        prefix = "" if len(found) == 1 else f"/{app.name}"
        endpoint = Endpoint(app, loaded, settings, made.metrics, prefix, made.tracing)
        routes.add(made, endpoint)
        if plan.reload or settings.model not in ("latest", endpoint.current.version):
            follower = Follower(endpoint, store, settings.model, within)
            made.on_start.append(follower.start)
            made.on_close.append(follower.stop)
    if settings.grpc_port is not None:
        from mlapp.serving.protocols.grpc import GrpcServer

        server = GrpcServer(made, settings)
        made.on_start.append(server.start)
        made.on_close.append(server.stop)
    if len(found) > 1:
        os.chdir(start)
    return made


def _own(plan: Plan, found: Sequence[Project]) -> Any:
    """The user's own application: of the project, or, for several, in the current folder.

    Raises:
        ConfigError: it is none. ProjectError: it is not there.
    """
    place = plan.settings.api
    if place is None:
        return None
    if len(found) == 1:
        _ = found[0].app  # first: it goes to the project's folder, and the application may import it
        api = attribute(place, found[0].root)
    else:
        api = attribute(place, Path.cwd())
    if not callable(api):
        raise ConfigError(
            f"serve.api: {place} is a {type(api).__name__}, not an ASGI application.", "Name a FastAPI object."
        )
    return api


def _lines(endpoint: Endpoint) -> list[str]:
    version = endpoint.current.version
    warnings = [f"Warning: {endpoint.name}: {difference}" for difference in endpoint.current.differences()]
    return [*warnings, f"{endpoint.name} version {version} answers at {{url}}{endpoint.prefix}/"]
