"""From projects to a running server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mlapp import config
from mlapp.config import Serve
from mlapp.errors import UsageError
from mlapp.project import Project
from mlapp.serving.asgi import Application, load
from mlapp.serving.endpoint import Endpoint


def projects(places: Sequence[str], environment: str | None = None) -> list[Project]:
    """The projects of `FILE` or `FILE:APP` arguments; that of the current folder when there are none.

    Raises:
        UsageError: no such file. ConfigError: a project's mlapp.yaml is wrong.
    """
    if not places:
        return [Project.find(environment=environment)]
    found = []
    for place in places:
        file, _, name = place.partition(":")
        path = Path(file).resolve()
        if path.is_dir():
            path = path / "app.py"
        if not path.is_file():
            raise UsageError(f"There is no {path}.", "Give files as `digits/app.py` or `digits/app.py:app`.")
        project = Project.find(path.parent, environment)
        at = path.relative_to(project.root).as_posix() + (f":{name}" if name else "")
        found.append(Project(project.root, msgspec.structs.replace(project.settings, app=at)))
    return found


def serve_settings(found: Sequence[Project], environment: str | None = None) -> Serve:
    """The `serve:` section: of the project, or, for several, of the current folder."""
    return found[0].settings.serve if len(found) == 1 else config.load(Path.cwd(), environment).serve


def application(found: Sequence[Project], settings: Serve) -> Application:
    """All of their models behind one application; each of several under its name.

    Raises:
        MlappError: an app cannot be imported, a model cannot be loaded, two apps have one name.
    """
    made = Application(settings)
    start = Path.cwd()
    for project in found:
        app = project.app
        if any(endpoint.name == app.name for endpoint in made.endpoints):
            raise UsageError(f"Two of the apps are called '{app.name}'.", "Give each App a name of its own.")
        loaded = load(app, settings.model, project.store)
        prefix = "" if len(found) == 1 else f"/{app.name}"
        made.add(Endpoint(app, loaded, settings, made.metrics, prefix))
    if len(found) > 1:
        os.chdir(start)
    return made
