"""Isolates the modules of several projects in one process: the modules can have the same names.

Every project has an `app.py`, and many have a `features.py`, but Python has one module per name. So a project's modules
are in `sys.modules` only while its code is imported or its models are loaded, and an `import` in one of its functions
activates them. A process with one project uses none of this.
"""

from __future__ import annotations

import builtins
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from mlapp.app_location import locate_app_import_paths

_import = builtins.__import__
_lock = threading.RLock()
_all: list[ProjectModules] = []
_here = threading.local()
"""`active`: the project with the modules that this thread has activated."""


class ProjectModules:
    """The modules of the project in `root`; `paths` are their folders."""

    def __init__(self, root: Path, paths: Sequence[str] = ()) -> None:
        self._root = str(root)
        self._paths = list(paths) or locate_app_import_paths(root)
        self._modules: dict[str, ModuleType] = {}

    @classmethod
    def of_project(cls, root: Path, paths: Sequence[str] = ()) -> ProjectModules:
        """The modules of a project that shares the process with others; one object per folder."""
        with _lock:
            modules = next((other for other in _all if other._root == str(root)), None)
            if modules is None:
                modules = cls(root, paths)
                _all.append(modules)
                _all.sort(key=lambda other: len(other._root), reverse=True)  # inner folders before outer ones
            builtins.__import__ = _import_for_project
            return modules

    @contextmanager
    def activate_modules(self) -> Iterator[None]:
        """Import as if the project were alone. Only one project at a time: other threads wait."""
        if getattr(_here, "active", None) is self:
            yield
            return
        with _lock:
            outer, _here.active = getattr(_here, "active", None), self
            others = {name: module for name, module, owner in _list_owned_modules() if owner is not self}
            for name in others:
                del sys.modules[name]
            sys.modules.update(self._modules)
            sys.path[:0] = self._paths
            try:
                yield
            finally:
                for path in self._paths:
                    sys.path.remove(path)
                self._modules = {name: module for name, module, owner in _list_owned_modules() if owner is self}
                sys.modules.update(others)
                _here.active = outer

    def has_module(self, name: str) -> bool:
        return name in self._modules


def _find_owning_project(namespace: Mapping[str, Any]) -> ProjectModules | None:
    """The project that a module belongs to, or None for installed packages."""
    file = namespace.get("__file__")
    if not isinstance(file, str) or f"{os.sep}site-packages{os.sep}" in file:
        return None
    return next((one for one in _all if file.startswith(one._root + os.sep)), None)


def _list_owned_modules() -> list[tuple[str, ModuleType, ProjectModules]]:
    """The modules of all projects in `sys.modules`, each with its project."""
    candidates = (
        (name, module, _find_owning_project(getattr(module, "__dict__", {})))
        for name, module in list(sys.modules.items())
    )
    return [(name, module, owner) for name, module, owner in candidates if owner is not None]


def _import_for_project(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Any = (),
    level: int = 0,
) -> ModuleType:
    """Python's `import`, but code of a project finds that project's modules."""
    first = name.partition(".")[0]
    if globals is not None and (level or first not in sys.modules or any(one.has_module(first) for one in _all)):
        owner = _find_owning_project(globals)
        if owner is not None:
            with owner.activate_modules():
                return _import(name, globals, locals, fromlist, level)
    return _import(name, globals, locals, fromlist, level)
