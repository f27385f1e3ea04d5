"""Loads the models of a `ServeSpec` in this process and serves them."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlapp.errors import ConfigError, UsageError
from mlapp.project import Project, load_project_attribute
from mlapp.project_modules import ProjectModules
from mlapp.serving import routes
from mlapp.serving.application import Application
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.inference.served_model import ServedModel, load_served_model
from mlapp.serving.inference.version_watcher import VersionWatcher
from mlapp.serving.observability.tracing import make_tracing
from mlapp.serving.process import monitoring
from mlapp.serving.process.server import run_server
from mlapp.serving.serve_spec import ServeSpec

LinesReporter = Callable[[list[str]], None]
GC_THRESHOLDS = (20_000, 5, 5)
"""Thresholds of the garbage collector: imports and models create many objects but few cycles, and requests none."""


@dataclass(frozen=True)
class Preloaded:
    """The projects and models (by app name) that a parent has loaded for its workers."""

    projects: Sequence[Project]
    models: Mapping[str, ServedModel]


def launch_server(
    plan: ServeSpec,
    listener: socket.socket,
    ready: LinesReporter,
    preloaded: Preloaded | None = None,
    *,
    parent: int | None = None,
    on_switch: Callable[[], None] | None = None,
) -> None:
    """Load the models and serve them until SIGTERM or SIGINT.

    Args:
        ready: receives a line for each model when connections are accepted.
        preloaded: the models, if the parent of this process has loaded them.
        parent: a file descriptor that reaches its end when the parent exits. Then the server stops.
        on_switch: called after a model is replaced by another version.

    Raises:
        MlappError: an app cannot be imported, or a model cannot be loaded or cannot predict.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    application = build_launched_application(plan, preloaded, on_switch)

    def announce_start() -> None:
        ready([line for endpoint in application.endpoints for line in _list_announcement_lines(endpoint)])

    run_server(application, listener, plan.settings, announce_start, parent=parent)


def choose_launch_context(projects: Sequence[Project], project: Project) -> Callable[[], AbstractContextManager[None]]:
    """A context manager to import an app and load its models in, which separates the modules of several apps."""
    if len(projects) == 1:
        return nullcontext
    return ProjectModules.of_project(project.root, project.import_paths).activate_modules


def build_launched_application(
    plan: ServeSpec, preloaded: Preloaded | None = None, on_switch: Callable[[], None] | None = None
) -> Application:
    """One application with all models of the plan. Several models are served under their names.

    Args:
        preloaded, on_switch: as for `launch_server`.

    Raises:
        MlappError: an app cannot be imported, a model cannot be loaded, two apps have one name.
    """
    settings = plan.settings
    start = Path.cwd()
    projects = plan.open_projects() if preloaded is None else preloaded.projects
    models = {} if preloaded is None else preloaded.models
    application = Application(
        settings, _load_launched_user_api(plan, projects), make_tracing(",".join(project.name for project in projects))
    )
    for project in projects:
        make_context = choose_launch_context(projects, project)
        with make_context():
            app, store = project.app, project.store
            if any(endpoint.name == app.name for endpoint in application.endpoints):
                raise UsageError(f"Two of the apps are called '{app.name}'.", "Give each App a unique name.")
            prefix = "" if len(projects) == 1 else f"/{app.name}"
            model = models.get(app.name) or load_served_model(app, settings.model, store, settings)
            endpoint = Endpoint(app, model, settings, application.metrics, prefix, application.tracing)
        monitoring.monitor_served_endpoint(application, endpoint, project, plan.bundle)
        routes.add_endpoint_routes(application, endpoint)
        if plan.reload or settings.model not in ("latest", endpoint.current.version):
            follower = VersionWatcher(endpoint, store, settings.model, make_context, on_switch)
            application.on_start.append(follower.start_watching)
            application.on_close.append(follower.stop_watching)
    if settings.grpc_port is not None:
        from mlapp.serving.protocols.grpc import GrpcServer

        server = GrpcServer(application, settings, shares_port=settings.workers > 1 or plan.reload)
        application.on_start.append(server.start_server)
        application.on_close.append(server.stop_server)
    if len(projects) > 1:
        os.chdir(start)
    return application


def _load_launched_user_api(plan: ServeSpec, projects: Sequence[Project]) -> Any:
    """The user's own application: from the project, or, for several projects, from the current folder.

    Raises:
        ConfigError: it is not an application. ProjectError: it does not exist.
    """
    address = plan.settings.api
    if address is None:
        return None
    if len(projects) == 1:
        _ = projects[0].app  # first: it changes to the project's folder, and the user's application may import the app
        api = load_project_attribute(address, projects[0].root)
    else:
        api = load_project_attribute(address, Path.cwd())
    if not callable(api):
        raise ConfigError(
            f"serve.api: {address} is a {type(api).__name__}, not an ASGI application.",
            "Name a FastAPI or other ASGI object.",
        )
    return api


def _list_announcement_lines(endpoint: Endpoint) -> list[str]:
    version = endpoint.current.version
    warnings = [f"Warning: {endpoint.name}: {difference}" for difference in endpoint.current.list_differences()]
    return [*warnings, f"{endpoint.name} version {version} answers at {{url}}{endpoint.prefix}/"]
