"""Finds the framework of a model by its type, by its name, or by the suffix of its file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from mlapp import plugins
from mlapp.errors import ModelError, suggest_nearest
from mlapp.frameworks.framework import Framework
from mlapp.frameworks.python import PythonFramework

log = logging.getLogger(__name__)


def find_framework(kind: type) -> Framework:
    """The framework of models of this type; plain Python for a type without an adapter.

    The nearest base class decides: XGBoost's classifier also extends scikit-learn's, but its XGBoost base is nearer.
    """
    for base in kind.__mro__[:-1]:
        for framework in _order_framework_adapters(base.__module__.partition(".")[0]):
            if framework.owns(base):
                return framework
    return PythonFramework()


def get_framework(name: str) -> Framework:
    """The framework with the name in a manifest.

    Raises:
        ModelError: no installed adapter has that name.
    """
    for adapter in _order_framework_adapters(name):
        if adapter.name == name:
            return adapter
    frameworks = {framework.name: framework for framework in (*_load_framework_adapters(), PythonFramework())}
    if name not in frameworks:
        raise ModelError(
            f"No adapter for the model's framework '{name}' is installed.{suggest_nearest(name, frameworks)}",
            f"Install the package that adds it; known here: {', '.join(sorted(frameworks))}.",
        )
    return frameworks[name]


def find_framework_for_file(file: Path) -> Framework:
    """The framework that reads a ready model's file.

    Raises:
        ModelError: no adapter reads files of that suffix.
    """
    frameworks = (*_load_framework_adapters(), PythonFramework())
    for framework in frameworks:
        if file.suffix in framework.suffixes:
            return framework
    suffixes = sorted({suffix for framework in frameworks for suffix in framework.suffixes})
    raise ModelError(
        f"No framework reads '{file}'.", f"Known suffixes: {', '.join(suffixes)}; or return the model from a function."
    )


def _load_framework_adapters() -> Iterator[Framework]:
    return _order_framework_adapters("")


def _order_framework_adapters(first: str) -> Iterator[Framework]:
    """All adapters, starting with the one registered under this name, so that others are imported only if needed."""
    for name in sorted(_list_framework_names(), key=lambda name: name != first):
        adapter = _load_framework_adapter(name)
        if adapter is not None:
            yield adapter


@cache
def _list_framework_names() -> tuple[str, ...]:
    return tuple(plugins.list_plugins(plugins.FRAMEWORKS))


@cache
def _load_framework_adapter(name: str) -> Framework | None:
    """The adapter with this name; None, with a warning, if its package cannot be imported."""
    try:
        adapter: Framework = plugins.load_plugin(plugins.FRAMEWORKS, name)()
    except plugins.PluginError as error:
        log.warning("%s %s", error.what, error.todo)
        return None
    return adapter
