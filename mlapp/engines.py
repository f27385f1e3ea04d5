"""Engines run a project's pipeline elsewhere, for `--remote`. Their entry-point group is `mlapp.engines`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlapp import plugins
from mlapp.errors import ConfigError, suggest_nearest

if TYPE_CHECKING:
    from mlapp.flyte.interface import Engine
    from mlapp.project import Project


def open_project_engine(project: Project) -> Engine:
    """The engine that `engine:` in mlapp.yaml names. Makes no request.

    Raises:
        ConfigError: no installed package has an engine of that name.
        PluginError: its package cannot be imported.
        MissingExtraError: the packages that it needs are not installed.
    """
    name = project.settings.engine
    engines = plugins.list_plugins(plugins.ENGINES)
    if name not in engines:
        raise ConfigError(
            f"engine: there is no engine '{name}'.{suggest_nearest(name, engines)}",
            f"Installed engines: {', '.join(sorted(engines)) or 'none'}. Change `engine:` in mlapp.yaml.",
        )
    engine: Engine = plugins.load_plugin(plugins.ENGINES, name)(project)
    return engine
