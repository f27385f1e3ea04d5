"""The apps and settings to serve, from the command line. A parent process passes them to its workers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from mlapp import bundle as bundles
from mlapp import config
from mlapp.config import Serve
from mlapp.errors import UsageError
from mlapp.project import Project

SAGEMAKER_ARGUMENT = "serve"
"""The argument that Amazon SageMaker appends to any entry point: `docker run IMAGE serve`."""


class ServeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The apps to serve, and their settings.

    Attributes:
        bundle: the folder of a bundle, instead of apps.
        apps: files, optionally with the name of an App after a colon; empty for the current folder's app.
        environment: the key of `environments:` in mlapp.yaml.
        settings: the `serve:` settings, with those of the command line and of variables.
        flags: the settings of the command line, which override later changes of mlapp.yaml.
        reload: load the newest version as soon as it exists, not only when an alias moves.
    """

    apps: tuple[str, ...]
    bundle: str | None
    environment: str | None
    settings: Serve
    flags: dict[str, Any] = {}
    reload: bool = False

    def open_projects(self) -> list[Project]:
        """The projects of the apps."""
        return find_served_projects(self.apps, self.bundle, self.environment)

    def with_fresh_settings(self) -> ServeSpec:
        """This specification with the current settings of mlapp.yaml.

        Raises:
            ConfigError: it is wrong.
        """
        settings = msgspec.structs.replace(read_serve_settings(self.open_projects(), self.environment), **self.flags)
        return msgspec.structs.replace(self, settings=settings)


def find_served_projects(apps: Sequence[str], bundle: str | None, environment: str | None) -> list[Project]:
    """The projects of `FILE` or `FILE:APP` arguments, or of a bundle; by default that of the current folder.

    Raises:
        BundleError: no bundle, or a modified one. UsageError: no such file, or both apps and a bundle.
        ConfigError: a project's mlapp.yaml is wrong.
    """
    if bundle is not None:
        if apps and list(apps) != [SAGEMAKER_ARGUMENT]:
            raise UsageError("Apps and --bundle are both given.", "Give one of them: a bundle contains its app.")
        return [bundles.open(bundle).served_project]
    if not apps:
        return [Project.find(environment=environment)]
    projects = []
    for argument in apps:
        file, _, name = argument.partition(":")
        path = Path(file).resolve()
        if path.is_dir():
            path = path / "app.py"
        if not path.is_file():
            raise UsageError(f"There is no {path}.", "Give files as `digits/app.py` or `digits/app.py:app`.")
        projects.append(Project.of_file(path, name, environment))
    return projects


def read_serve_settings(projects: Sequence[Project], environment: str | None = None) -> Serve:
    """The `serve:` section of the project, or, for several projects, of the current folder."""
    return projects[0].settings.serve if len(projects) == 1 else config.load_settings(Path.cwd(), environment).serve
