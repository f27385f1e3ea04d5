"""What to serve: from the command line, passed from a parent to its workers."""

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
    """Which apps, and how.

    Attributes:
        bundle: the folder of a bundle, in place of apps.
        apps: files, each with the name of an App after a colon where it is needed; none: the current folder's.
        environment: of mlapp.yaml.
        settings: all flags and variables are in it.
        flags: of the settings, those that the command line gave; they hold whatever mlapp.yaml comes to say.
        reload: load the newest version as soon as it is there, not only when an alias moves.
    """

    apps: tuple[str, ...]
    bundle: str | None
    environment: str | None
    settings: Serve
    flags: dict[str, Any] = {}
    reload: bool = False

    def open_projects(self) -> list[Project]:
        """The projects of the apps."""
        return find_projects(self.apps, self.bundle, self.environment)

    def with_fresh_settings(self) -> ServeSpec:
        """The plan with the settings that mlapp.yaml has now.

        Raises:
            ConfigError: it is wrong.
        """
        settings = msgspec.structs.replace(read_serve_settings(self.open_projects(), self.environment), **self.flags)
        return msgspec.structs.replace(self, settings=settings)


def find_projects(apps: Sequence[str], bundle: str | None, environment: str | None) -> list[Project]:
    """The projects of `FILE` or `FILE:APP` arguments, or of a bundle; that of the current folder when there are none.

    Raises:
        BundleError: no bundle, or a changed one. UsageError: no such file; apps and a bundle.
        ConfigError: a project's mlapp.yaml is wrong.
    """
    if bundle is not None:
        if apps and list(apps) != [SAGEMAKER_ARGUMENT]:
            raise UsageError("Apps and --bundle are both given.", "Give one of them: a bundle holds its app.")
        return [bundles.open(bundle).served_project]
    if not apps:
        return [Project.find(environment=environment)]
    found = []
    for place in apps:
        file, _, name = place.partition(":")
        path = Path(file).resolve()
        if path.is_dir():
            path = path / "app.py"
        if not path.is_file():
            raise UsageError(f"There is no {path}.", "Give files as `digits/app.py` or `digits/app.py:app`.")
        found.append(Project.of_file(path, name, environment))
    return found


def read_serve_settings(found: Sequence[Project], environment: str | None = None) -> Serve:
    """The `serve:` section: of the project, or, for several, of the current folder."""
    return found[0].settings.serve if len(found) == 1 else config.load_settings(Path.cwd(), environment).serve
