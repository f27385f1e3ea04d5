"""A project: the folder of mlapp.yaml and app.py. Finds it, reads its settings, imports its App."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import traceback
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from mlapp import config, notebook
from mlapp.app import App
from mlapp.config import Settings
from mlapp.errors import ProjectError, UserCodeError, nearest
from mlapp.modules import import_paths
from mlapp.store import Store, open_store


@dataclass(frozen=True)
class Project:
    """A project in `root`. The app is imported when it is first asked for, and once.

    `environment` is the key of `environments:` whose settings these are.
    """

    root: Path
    settings: Settings
    environment: str | None = None

    @classmethod
    def find(cls, start: Path | str = ".", environment: str | None = None) -> Project:
        """The project of a folder: the nearest one upwards that holds mlapp.yaml or app.py, else the folder itself.

        Raises:
            ConfigError: mlapp.yaml is wrong.
        """
        here = Path(start).resolve()
        root = next((folder for folder in (here, *here.parents) if _is_project(folder)), here)
        return cls(root, config.load(root, environment), environment)

    @cached_property
    def app(self) -> App:
        """The App in the file that `app:` names.

        Raises:
            ProjectError: no such file, a syntax error, a missing import, no App in it or more than one.
            DeclarationError: a function does not fit its stage.
        """
        file, _, name = self.settings.app.partition(":")
        path = self.root / file
        if not path.is_file():
            raise ProjectError(
                f"There is no {file} in {self.root}.",
                "Go to the project's folder, or make a project: `mlapp init NAME`.",
            )
        # The user's own paths (data, ready models) are relative to the project, from wherever a command is run.
        os.chdir(self.root)
        return _app_in(_import(path, self.root), name, path)

    @cached_property
    def name(self) -> str:
        """The app's name; read from the source where it stands there as a text, as importing the app takes seconds."""
        file, _, variable = self.settings.app.partition(":")
        return _name_in(self.root / file, variable) or self.app.name

    @cached_property
    def store(self) -> Store:
        """The model store that `store:` names."""
        return self.open_store(self.settings.store)

    def open_store(self, url: str) -> Store:
        """Another model store: a URL, or a folder relative to the project's."""
        return open_store(url, self.root)


def attribute(place: str, root: Path) -> Any:
    """What `FILE:NAME` names in a project's folder.

    Raises:
        ProjectError: no such file, or nothing of that name in it. UserCodeError: the import raised.
    """
    file, _, name = place.partition(":")
    path = (root / file).resolve()
    if not path.is_file():
        raise ProjectError(f"There is no {file} in {root}.", "Name it as `routes.py:api`.")
    module = _import(path, root)
    if not name or not hasattr(module, name):
        raise ProjectError(
            f"{file} has no '{name}'.{nearest(name, vars(module))}",
            "Name what is in it after a colon: `routes.py:api`.",
        )
    return getattr(module, name)


def _is_project(folder: Path) -> bool:
    return (folder / config.FILE).is_file() or (folder / "app.py").is_file()


def _name_in(path: Path, variable: str) -> str | None:
    """The name that the one `variable = App("name", …)` in a source gives, or None where it is not that plain."""
    if path.suffix != ".py" or not path.is_file():
        return None
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return None
    names = []
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        called = node.value.func
        is_app = (called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")) == "App"
        targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if is_app and (not variable or variable in targets):
            first = node.value.args[0] if node.value.args else None
            names.append(first.value if isinstance(first, ast.Constant) else None)
    return names[0] if len(names) == 1 and isinstance(names[0], str) else None


def _import(path: Path, root: Path) -> ModuleType:
    """Import the file under its own name, so that a pickle or skops file of a class in it can be read again."""
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    sys.path[:0] = [path for path in import_paths(root) if path not in sys.path]
    spec = importlib.util.spec_from_file_location(name, path, loader=SourceFileLoader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        if path.suffix == ".ipynb":
            exec(compile(notebook.source(path), str(path), "exec"), vars(module))  # noqa: S102
        else:
            spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        raise _import_error(error, path, root) from error
    return module


def _import_error(error: BaseException, path: Path, root: Path) -> BaseException:
    from mlapp.errors import MlappError

    if isinstance(error, MlappError) or not isinstance(error, Exception | SystemExit):
        return error
    if isinstance(error, SyntaxError):
        at = f"{error.filename or path}:{error.lineno}"
        return ProjectError(f"{at}: {error.msg}: {(error.text or '').strip()}", "Mend that line.")
    if isinstance(error, ModuleNotFoundError) and error.name:
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(root)
        ]
        at = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(path)
        return ProjectError(
            f"{at} imports '{error.name}', which is not installed.",
            "Install the project's requirements: pip install -r requirements.txt.",
        )
    return UserCodeError(f"Importing {path.name}", error, root)


def _app_in(module: ModuleType, name: str, path: Path) -> App:
    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    if name:
        if name not in apps:
            raise ProjectError(
                f"{path} has no App '{name}'.{nearest(name, apps)}",
                f"It has: {', '.join(apps) or 'none'}. Change `app:` in mlapp.yaml.",
            )
        return apps[name]
    distinct = {id(app): app for app in apps.values()}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if not distinct:
        raise ProjectError(
            f"{path} holds no App.", "Make one: `from mlapp import App`, then `app = App('name', target='column')`."
        )
    listed = ", ".join(apps)
    raise ProjectError(
        f"{path} holds {len(distinct)} Apps: {listed}.",
        f"Say which one in mlapp.yaml: `app: {path.name}:{next(iter(apps))}`.",
    )
