"""Finds imports of the app that the locked requirements do not cover, before an image is built without them.

Only imports that surely run are judged: those of the app's file, and of the project's modules that it imports, outside
of functions, conditions and `try`. Relative imports are not followed. Of several packages that provide a module, one
suffices.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from mlapp.app_location import AppLocation, locate_app_import_paths


def find_unlocked_imports(root: Path, app: AppLocation, locked_names: Collection[str]) -> Iterator[str]:
    """A warning for each imported module whose package is installed here, but not locked.

    Args:
        root: the project's folder.
        app: where the App is.
        locked_names: the normalized names of the locked packages.
    """
    read_owners = cache(packages_distributions)  # reads every installed package: only for names that the lock lacks
    folders = [Path(path) for path in locate_app_import_paths(root, app)]
    pending, seen_files, seen_names = [app.file], {app.file}, set[str]()
    while pending:
        file = pending.pop(0)
        for name, line in _list_certain_imports(file):
            own_files = [path for folder in folders for path in _list_module_files(folder, name) if path.is_file()]
            pending += [path for path in own_files if path not in seen_files]
            seen_files.update(own_files)
            top = name.partition(".")[0]
            is_own = any((folder / top).is_dir() or (folder / f"{top}.py").is_file() for folder in folders)
            if top in seen_names or is_own or top in sys.stdlib_module_names:
                continue
            seen_names.add(top)
            if _is_locked(canonicalize_name(top), locked_names):
                continue
            packages = sorted({canonicalize_name(owner) for owner in read_owners().get(top, ())})
            if packages and not any(
                _is_locked(package, locked_names) or _comes_from_no_index(package) for package in packages
            ):
                where = f"{file.relative_to(root) if file.is_relative_to(root) else file}:{line}"
                yield (
                    f"{where} imports '{top}', which the image does not contain: {' or '.join(packages)} is not in the "
                    "project's requirements. Add it there."
                )


def _list_certain_imports(file: Path) -> Iterator[tuple[str, int]]:
    """The modules that a file imports whenever it is imported, with their lines. None if the file cannot be parsed."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return
    for statement in body:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield alias.name, statement.lineno
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            yield statement.module, statement.lineno
            for alias in statement.names:  # each can be a module
                yield f"{statement.module}.{alias.name}", statement.lineno


def _list_module_files(folder: Path, name: str) -> list[Path]:
    """The files that importing a module runs, if it is in the folder."""
    parts = name.split(".")
    packages = [folder.joinpath(*parts[: end + 1], "__init__.py") for end in range(len(parts))]
    return [*packages, folder.joinpath(*parts).with_suffix(".py")]


def _is_locked(package: str, locked_names: Collection[str]) -> bool:
    """Whether a package is locked, or one that probably provides the same module: psycopg2-binary for psycopg2."""
    return any(
        package == name or package.startswith(f"{name}-") or name.startswith(f"{package}-") for name in locked_names
    )


def _comes_from_no_index(package: str) -> bool:
    """Whether a package is installed from a folder, a file or git: a lock can name it otherwise."""
    try:
        return distribution(package).read_text("direct_url.json") is not None
    except PackageNotFoundError:
        return True
