"""Locates the file and the module of the App that `app:` in mlapp.yaml names."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from mlapp import config

SUFFIXES = (".py", ".ipynb")
SOURCE_FOLDER = "src"


@dataclass(frozen=True)
class AppLocation:
    """A file of a project and the name of its module.

    Attributes:
        file: absolute; it need not exist.
        module: the name to import it by: `app`, or `shop.main` for a file of a package.
        variable: the name of the App in it; empty when the setting names none.
        folder: the folder of the module's top-level package, which Python must find.
    """

    file: Path
    module: str
    variable: str
    folder: Path

    @property
    def address(self) -> str:
        """The file and the variable, as `MLAPP_APP` names them for another process."""
        return f"{self.file}:{self.variable}" if self.variable else str(self.file)

    @property
    def is_in_package(self) -> bool:
        return "." in self.module or self.file.name == "__init__.py"


def locate_app(setting: str, root: Path) -> AppLocation:
    """The location that `app.py`, `src/shop/main.py:app` or `shop.main:app` names in the project in `root`.

    A file with relative imports, or in a folder with `__init__.py`, is imported as a module of its package.
    """
    target, _, variable = setting.partition(":")
    is_file = target.endswith(SUFFIXES) or "/" in target
    file = root / target if is_file else _locate_app_module(target, root)
    if file.suffix == ".ipynb":
        return AppLocation(file, file.stem, variable, file.parent)
    folder = _find_app_package_folder(file, root)
    if not is_file and not file.is_file():
        return AppLocation(file, target, variable, folder)
    parts = [*file.parent.relative_to(folder).parts, *([] if file.name == "__init__.py" else [file.stem])]
    return AppLocation(file, ".".join(parts), variable, folder)


def locate_app_import_paths(root: Path, location: AppLocation | None = None) -> list[str]:
    """The folders with modules of the project in `root`: the project, `src` if it has packages, and the app's folder.

    They are listed although the project may be installed as editable here: it need not be where the project is shipped.
    """
    folders = [root]
    source = root / SOURCE_FOLDER
    if _is_src_layout(root, source):
        folders.append(source)
    if location is not None and location.folder not in folders:
        folders.append(location.folder)
    return [str(folder) for folder in folders]


def find_project_root(folder: Path) -> Path | None:
    """The nearest folder upward with mlapp.yaml or app.py, or None.

    An app.py within a package belongs to the project whose mlapp.yaml names an app in that package.
    """
    upwards = (folder, *folder.parents)
    nearest = next((candidate for candidate in upwards if _is_project_folder(candidate)), None)
    if nearest is None or (nearest / config.FILE).is_file():
        return nearest
    for parent in nearest.parents:
        if (parent / config.FILE).is_file():
            app_file = locate_app(config.load_settings(parent, environ={}).app, parent).file
            return parent if app_file.is_relative_to(nearest) else nearest
    return nearest


def _is_project_folder(folder: Path) -> bool:
    return (folder / config.FILE).is_file() or (folder / "app.py").is_file()


def _locate_app_module(name: str, root: Path) -> Path:
    path = Path(*name.split("."))
    candidates = [
        base / file
        for base in (root, root / SOURCE_FOLDER)
        for file in (path.with_name(f"{path.name}.py"), path / "__init__.py")
    ]
    return next((file for file in candidates if file.is_file()), candidates[0])


def _find_app_package_folder(file: Path, root: Path) -> Path:
    """The folder that holds the file's top-level package; the file's own folder when it is in no package.

    It is never above the project, because the project's folder can have another name where it is shipped.
    """
    folder = file.parent
    if folder == root or not folder.is_relative_to(root):
        return folder
    if (folder / "__init__.py").is_file():
        while folder != root and (folder / "__init__.py").is_file():
            folder = folder.parent
        return folder
    if not _has_app_relative_imports(file):
        return folder
    source = root / SOURCE_FOLDER
    return source if folder != source and folder.is_relative_to(source) else root


def _has_app_relative_imports(file: Path) -> bool:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    return any(isinstance(node, ast.ImportFrom) and node.level > 0 for node in ast.walk(tree))


def _is_src_layout(root: Path, source: Path) -> bool:
    """Whether `src` is a folder of packages, and not a package itself."""
    if not source.is_dir():
        return False
    if (root / "pyproject.toml").is_file():
        return True
    return not (source / "__init__.py").is_file() and any(source.glob("*/__init__.py"))
