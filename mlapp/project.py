"""A project: the folder of mlapp.yaml and app.py. Finds it, reads its settings, imports its App."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from mlapp import config, notebook_source
from mlapp.app import App
from mlapp.app_location import SUFFIXES, AppLocation, find_project_root, locate_app, locate_app_import_paths
from mlapp.app_name import read_app_name
from mlapp.config import Settings
from mlapp.errors import MlappError, ProjectError, UserCodeError, suggest_nearest
from mlapp.store import Store, open_store


@dataclass(frozen=True)
class Project:
    """A project in `root`. The app is imported once, at first use.

    `environment` is the key of `environments:` whose settings these are.
    """

    root: Path
    settings: Settings
    environment: str | None = None

    @classmethod
    def find(cls, start: Path | str = ".", environment: str | None = None) -> Project:
        """The project of a folder: the nearest parent with mlapp.yaml or app.py, otherwise the folder itself.

        If `MLAPP_APP` names a file elsewhere, such as `/srv/shop/app.py`, the project is that file's.

        Raises:
            ConfigError: mlapp.yaml is wrong.
        """
        here = Path(start).resolve()
        nearest_root = find_project_root(here)
        file, _, variable = os.environ.get(f"{config.PREFIX}APP", "").partition(":")
        is_of_project = nearest_root is not None and not Path(file).is_absolute() and (nearest_root / file).is_file()
        if file.endswith(SUFFIXES) and not is_of_project and (here / file).is_file():
            return cls.of_file(here / file, variable, environment)
        root = nearest_root or here
        return cls(root, config.load_settings(root, environment), environment)

    @classmethod
    def of_file(cls, file: Path, variable: str = "", environment: str | None = None) -> Project:
        """The project that a file belongs to, with the App in that file.

        Raises:
            ConfigError: mlapp.yaml is wrong.
        """
        file = file.resolve()
        root = find_project_root(file.parent) or file.parent
        place = file.relative_to(root).as_posix() + (f":{variable}" if variable else "")
        return cls(root, msgspec.structs.replace(config.load_settings(root, environment), app=place), environment)

    @cached_property
    def location(self) -> AppLocation:
        """The file that `app:` names, and its module."""
        return locate_app(self.settings.app, self.root)

    @property
    def import_paths(self) -> list[str]:
        """The folders that contain the project's modules."""
        return locate_app_import_paths(self.root, self.location)

    @cached_property
    def app(self) -> App:
        """The App in the file that `app:` names.

        Raises:
            ProjectError: no such file, a syntax error, a missing import, no App in it or more than one.
            DeclarationError: a function does not fit its stage.
        """
        location = self.location
        if not location.file.is_file():
            raise ProjectError(
                f"There is no {self.settings.app.partition(':')[0]} in {self.root}.",
                "Change to the project's folder, or create a project: `mlapp init NAME`.",
            )
        # The user's paths (data, ready models) are relative to the project, wherever a command runs.
        os.chdir(self.root)
        app = _find_project_app(_import_project_file(location, self.root), location.variable, location.file)
        if self.settings.name not in (None, app.name):
            raise ProjectError(
                f"The App in {self.settings.app} is '{app.name}', but {config.FILE} says `name: {self.settings.name}`.",
                "Use the same name in both: models and releases are stored under it.",
            )
        app.set_project(self.root, self.settings)
        return app

    @cached_property
    def name(self) -> str:
        """The app's name: `name:` of mlapp.yaml, otherwise from the source, which is read and not run.

        Raises:
            ProjectError: neither has it, and the app cannot be imported.
        """
        name = self.settings.name or read_app_name(self.location.file, self.location.variable)
        if name is not None:
            return name
        try:
            return self.app.name
        except MlappError as error:
            if not (self.root / config.FILE).is_file():
                raise
            raise ProjectError(
                f"{config.FILE} in {self.root} does not name the app, and its code gives no name: {error.what}",
                f"Add `name: NAME` to {config.FILE}.",
            ) from error

    @cached_property
    def store(self) -> Store:
        """The model store that `store:` names."""
        return self.open_store(self.settings.store)

    def open_store(self, settings: str | config.Store) -> Store:
        """Another model store: a URL, or a folder relative to the project's."""
        return open_store(settings, self.root)


def load_project_attribute(address: str, root: Path) -> Any:
    """The object that `FILE:NAME` names in a project's folder.

    Raises:
        ProjectError: no such file, or no such name in it. UserCodeError: the import raised.
    """
    location = locate_app(address, root)
    file, name = address.partition(":")[0], location.variable
    if not location.file.is_file():
        raise ProjectError(f"There is no {file} in {root}.", "Name it as `routes.py:api`.")
    module = _import_project_file(location, root)
    if not name or not hasattr(module, name):
        raise ProjectError(
            f"{file} has no '{name}'.{suggest_nearest(name, vars(module))}",
            "Name an object in the file after a colon: `routes.py:api`.",
        )
    return getattr(module, name)


def _import_project_file(location: AppLocation, root: Path) -> ModuleType:
    """Import the file under its own name, which pickle and skops files of its classes refer to."""
    name, path = location.module, location.file
    loaded = sys.modules.get(name)
    if loaded is not None and _is_same_project_app(loaded, path):
        return loaded
    paths = locate_app_import_paths(root, location)
    sys.path[:] = [*paths, *(path for path in sys.path if path not in paths)]
    if location.is_in_package:
        _forget_other_project_package(name.partition(".")[0], location.folder)
    try:
        module = importlib.import_module(name) if location.is_in_package else _import_project_app(name, path)
    except BaseException as error:  # also sys.exit() and Ctrl-C: a half-imported module must not stay
        sys.modules.pop(name, None)
        raise _project_import_error(error, path, root) from error
    if not _is_same_project_app(module, path):
        raise ProjectError(
            f"{path} is the module '{name}', but Python imports that from {getattr(module, '__file__', None)}.",
            f"Rename the package '{name.partition('.')[0]}', or uninstall the other one.",
        )
    return module


def _forget_other_project_package(name: str, folder: Path) -> None:
    """Let a package be imported from `folder` if another project's package of that name is loaded."""
    libraries = tuple(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib"))
    modules = [module_name for module_name in sys.modules if module_name == name or module_name.startswith(f"{name}.")]
    files = [file for module_name in modules for file in _list_project_modules(sys.modules[module_name])]
    if all(file.startswith((f"{folder}{os.sep}", *libraries)) for file in files):
        return
    for module_name in modules:
        del sys.modules[module_name]
    importlib.invalidate_caches()


def _list_project_modules(module: ModuleType) -> list[str]:
    """The module's file; the folders of a package without one."""
    file = getattr(module, "__file__", None)
    return [file] if file else list(getattr(module, "__path__", ()))


def _import_project_app(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path, loader=SourceFileLoader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if path.suffix == ".ipynb":
        exec(compile(notebook_source.read_code_cells(path), str(path), "exec"), vars(module))  # noqa: S102
    else:
        spec.loader.exec_module(module)
    return module


def _is_same_project_app(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and Path(file).resolve() == path.resolve()


def _project_import_error(error: BaseException, path: Path, root: Path) -> BaseException:
    if isinstance(error, MlappError) or not isinstance(error, Exception | SystemExit):
        return error
    if isinstance(error, SyntaxError):
        at = f"{error.filename or path}:{error.lineno}"
        return ProjectError(f"{at}: {error.msg}: {(error.text or '').strip()}", "Fix that line.")
    if isinstance(error, ModuleNotFoundError) and error.name:
        return ProjectError(
            f"{_find_failed_project_line(error, path, root)} imports '{error.name}', which is not installed.",
            "Add its package to requirements.txt if it is not there, and run: pip install -r requirements.txt.",
        )
    if isinstance(error, AttributeError) and isinstance(error.obj, App):
        name, app = str(error.name), error.obj
        known = [attribute for attribute in dir(app) if not attribute.startswith("_")]
        decorators = [attribute for attribute, value in vars(app).items() if callable(value)]
        return ProjectError(
            f"{_find_failed_project_line(error, path, root)}: an App has no '{name}'.{suggest_nearest(name, known)}",
            f"Its decorators are: {', '.join(decorators)}.",
        )
    if isinstance(error, ImportError) and "no known parent package" in str(error):
        return ProjectError(
            f"{path} has a relative import but is not in a package.",
            "Import it by its name (`from features import …`), or move the code into a package: src/shop/main.py.",
        )
    return UserCodeError(f"Importing {path.name}", error, root)


def _find_failed_project_line(error: BaseException, path: Path, root: Path) -> str:
    """`file:line` of the innermost frame in the project; the app's file if there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(root)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(path)


def _find_project_app(module: ModuleType, name: str, path: Path) -> App:
    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    if name:
        if name not in apps:
            raise ProjectError(
                f"{path} has no App '{name}'.{suggest_nearest(name, apps)}",
                f"It has: {', '.join(apps) or 'none'}. Change `app:` in mlapp.yaml.",
            )
        return apps[name]
    distinct = {id(app): app for app in apps.values()}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if not distinct:
        raise ProjectError(
            f"{path} contains no App.",
            "Create one: `from mlapp import App`, then `app = App('name', target='column')`.",
        )
    names = ", ".join(apps)
    raise ProjectError(
        f"{path} contains {len(distinct)} Apps: {names}.",
        f"Name one in mlapp.yaml: `app: {path.name}:{next(iter(apps))}`.",
    )
