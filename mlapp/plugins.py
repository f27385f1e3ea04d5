"""Plugins: objects that packages register by entry points. Built-in frameworks, sources and targets use them too.

| group              | an entry is                                                                              |
|--------------------|------------------------------------------------------------------------------------------|
| `mlapp.frameworks` | a subclass of `mlapp.frameworks.Framework`                                               |
| `mlapp.sources`    | a function that returns a reader, for `app.data_reader.<name>(…)`: `mlapp.data.source`   |
| `mlapp.targets`    | a subclass of `mlapp.deploy.Target`, for `--target <name>`                               |
| `mlapp.engines`    | a function that takes the `Project` and returns an `mlapp.flyte.interface.Engine`        |
| `mlapp.sinks`      | where monitoring writes a server's predictions                                           |

A plugin that cannot be imported disables only itself.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from mlapp.errors import MlappError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

FRAMEWORKS = "mlapp.frameworks"
SOURCES = "mlapp.sources"
TARGETS = "mlapp.targets"
ENGINES = "mlapp.engines"
SINKS = "mlapp.sinks"
GROUPS = {FRAMEWORKS: "framework", SOURCES: "data source", TARGETS: "target", ENGINES: "engine", SINKS: "sink"}
"""The groups, and the name of an entry of each in messages."""

log = logging.getLogger(__name__)


class PluginError(MlappError):
    """A plugin cannot be imported; the message names its distribution."""


def list_plugins(group: str) -> dict[str, EntryPoint]:
    """The installed entries of a group by name, without importing them."""
    entries: dict[str, EntryPoint] = {}
    for folder in reversed(sys.path):  # the first folder with the entry wins
        entries.update(_read_plugin_entry_points(folder, _find_plugin_change(folder)).get(group, {}))
    return entries


@lru_cache(256)
def _read_plugin_entry_points(folder: str, change: int) -> dict[str, dict[str, EntryPoint]]:
    """The entries of the distributions in a folder, by group and name. Reading those of a hundred takes some 10 ms.

    Args:
        change: when the folder changed last.
    """
    from importlib.metadata import distributions

    entries: dict[str, dict[str, EntryPoint]] = {}
    for distribution in distributions(path=[folder]):
        for entry in distribution.entry_points:
            entries.setdefault(entry.group, {})[entry.name] = entry
    return entries


def _find_plugin_change(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


def load_plugin(group: str, name: str) -> Any:
    """The object of the entry `name` of a group.

    Raises:
        KeyError: the entry does not exist.
        PluginError: it cannot be imported.
    """
    return _load_plugin_entry_point(list_plugins(group)[name])


def load_plugins(group: str) -> Iterator[tuple[str, Any]]:
    """Name and value of each entry of a group. Skips an entry that cannot be imported, with one logged warning."""
    for name, entry in list_plugins(group).items():
        try:
            plugin = _load_plugin_entry_point(entry)
        except PluginError as error:
            _warn_of_plugin_once(f"{error.what} {error.todo}")
            continue
        yield name, plugin


def find_broken_plugins() -> Iterator[tuple[str, PluginError]]:
    """Group and name of every installed plugin that cannot be imported, as `target acme`, with the reason."""
    for group, kind in GROUPS.items():
        for name, entry in list_plugins(group).items():
            try:
                _load_plugin_entry_point(entry)
            except PluginError as error:
                yield f"{kind} {name}", error


def _load_plugin_entry_point(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except MlappError:
        raise
    except Exception as error:  # another package's code can raise anything
        kind = GROUPS.get(entry.group, "plugin")
        owner = entry.dist.name if entry.dist is not None else entry.value.partition(":")[0]
        release = f" {entry.dist.version}" if entry.dist is not None else ""
        raise PluginError(
            f"The {kind} '{entry.name}' of the package {owner}{release} cannot be imported: "
            f"{type(error).__name__}: {error}",
            f"Upgrade or remove it: pip install --upgrade {owner}, or pip uninstall {owner}.",
        ) from error


@cache
def _warn_of_plugin_once(text: str) -> None:
    log.warning(text)
