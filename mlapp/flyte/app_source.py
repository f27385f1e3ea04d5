"""The location of an app's code, so that a task in a container can import the same app."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mlapp import config
from mlapp.app import App
from mlapp.config import Settings
from mlapp.errors import MlappError, ProjectError
from mlapp.project import Project


@dataclass(frozen=True)
class Source:
    """An app, the folder of its project, and its location in that folder (`place`), such as `app.py:digits`.

    `environment` is the key of `environments:` with the settings to use, here and in the tasks. `size` is the size of
    the latest version's data, rows × columns, if known.
    """

    app: App
    root: Path
    place: str
    settings: Settings
    environment: str | None = None
    size: int | None = None

    @property
    def project(self) -> Project:
        """The project, in the code's current folder."""
        return Project(self.root, self.settings, self.environment)


def make_flyte_app_source(project: Project) -> Source:
    """The source of a project's app.

    Raises:
        ProjectError: see `Project.app`.
    """
    return Source(
        project.app,
        project.root,
        project.settings.app,
        project.settings,
        project.environment,
        read_app_training_size(project),
    )


def read_app_training_size(project: Project) -> int | None:
    """The number of cells in the latest version's data; None without a version, or in a container, which ignores it."""
    if "FLYTE_INTERNAL_EXECUTION_ID" in os.environ:
        return None
    try:
        versions = project.store.versions(project.name)
    except MlappError:
        return None
    return versions[-1].data.rows * versions[-1].data.columns if versions else None


def make_app_source(app: App) -> Source:
    """The source of an app that an imported module defines, for a user's own workflow that uses it.

    Raises:
        ProjectError: no imported file defines it, as in a notebook session.
    """
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file is None:
            continue
        for name, value in list(vars(module).items()):
            if value is app:
                project = Project.of_file(Path(file), name)
                return Source(app, project.root, project.settings.app, project.settings)
    raise ProjectError(
        f"App '{app.name}' is not defined in a file, so a cluster cannot import it.",
        "Define it at the top of a module, as in app.py, and import it from there.",
    )


def load_app_source(root: Path, place: str, environment: str | None = None) -> Source:
    """Import the app at `place` of the project in `root`.

    Raises:
        ProjectError: see `Project.app`. ConfigError: mlapp.yaml is wrong.
    """
    settings = msgspec.structs.replace(config.load_settings(root, environment), app=place)
    return make_flyte_app_source(Project(root, settings, environment))
