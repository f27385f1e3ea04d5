"""Fingerprints of code: of functions with everything that they call, and of a whole registration."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mlapp import distribution
from mlapp.provenance import GitState, read_installed_versions

PLAIN_TYPES = (str, bytes, int, float, bool, type(None))
TEXT_MODULES = ("datetime", "decimal", "enum", "fractions", "pathlib", "re", "uuid")
"""Modules of types whose text form describes a value completely."""


def compute_code_cache_version(functions: Iterable[Callable[..., Any]], root: Path, declared: Any = None) -> str:
    """The cache version of a task. It changes with the source of its functions and of everything that they call in the
    project, and with the values that they use from its modules.

    Comments, layout and decorator options are ignored. Libraries other than mlapp are ignored too: the image identifies
    their versions.

    Args:
        declared: plain values that the result also depends on.
    """
    hasher = hashlib.sha256(distribution.version().encode())
    walk = _SourceWalk(root.resolve(), hasher.update)
    walk.add_value(declared)
    for function in functions:
        walk.add_value(function)
    return hasher.hexdigest()[:16]


def compute_code_registration_version(
    archive: str, image: str, settings: Mapping[str, Any], git: GitState | None
) -> str:
    """The version of a registration, from code archive, image and settings. It is marked if git is dirty."""
    text = msgspec.json.encode(
        [archive, image, settings, read_installed_versions([distribution.NAME, "flytekit"])], order="sorted"
    )
    digest = hashlib.sha256(text).hexdigest()[:16]
    return f"{digest}-dirty" if git is not None and git.dirty else digest


class _SourceWalk:
    """Passes the sources of functions, and of everything that they refer to in the project, to `update`."""

    def __init__(self, root: Path, update: Callable[[bytes], Any]) -> None:
        self._root = root
        self._update = update
        self._seen: set[int] = set()
        self._files: set[str] = set()

    def add_value(self, value: Any) -> None:
        if isinstance(value, functools.partial):
            for part in (value.func, value.args, value.keywords):
                self.add_value(part)
            return
        value = getattr(value, "__func__", value)
        if isinstance(value, property):
            self.add_value(value.fget)
        elif _is_fingerprint_constant(value):
            self._update(repr(value).encode() + b"\0")
        elif isinstance(value, (list, tuple, set, frozenset)):
            for item in sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value:
                self.add_value(item)
        elif isinstance(value, dict):
            for key, item in value.items():
                self.add_value(key)
                self.add_value(item)
        elif id(value) not in self._seen:
            self._seen.add(id(value))
            self._add_code(value)

    def _add_code(self, value: Any) -> None:
        if isinstance(value, types.ModuleType):
            self._add_fingerprint_file(getattr(value, "__file__", None))
        elif isinstance(value, types.FunctionType):
            self._add_fingerprint_name(value)
            if self._is_own_code(value.__code__.co_filename):
                self._add_fingerprint_function(value)
            elif hasattr(value, "__wrapped__"):
                self.add_value(value.__wrapped__)
        elif isinstance(value, type):
            self._add_fingerprint_class(value)
        elif hasattr(value, "__dict__") and (
            callable(value) or self._is_own_code(_find_fingerprinted_file(type(value)))
        ):
            self.add_value(type(value))
            for attribute in vars(value).values():
                if isinstance(attribute, (*PLAIN_TYPES, list, tuple, dict, types.FunctionType)):
                    self.add_value(attribute)

    def _add_fingerprint_class(self, kind: type) -> None:
        self._add_fingerprint_name(kind)
        if self._is_own_code(_find_fingerprinted_file(kind)):
            self._update(_read_fingerprinted_source(kind))
            for member in (*vars(kind).values(), *kind.__bases__):
                if isinstance(member, (types.FunctionType, type, staticmethod, classmethod, property)):
                    self.add_value(member)

    def _add_fingerprint_function(self, function: types.FunctionType) -> None:
        self._update(_read_fingerprinted_source(function))
        for value in (function.__defaults__, function.__kwdefaults__):
            self.add_value(value)
        for cell in function.__closure__ or ():
            try:
                self.add_value(cell.cell_contents)
            except ValueError:  # not yet assigned
                continue
        modules: list[Any] = []
        for name in _iterate_fingerprinted_names(function.__code__):
            if name in function.__globals__:
                values = [function.__globals__[name]]
            else:  # a module that the function imports when called, or `b` of a module `a` in `a.b.f(x)`
                self._add_fingerprint_import(name, Path(function.__code__.co_filename).parent)
                values = [getattr(module, name, None) for module in modules]
            for value in values:
                if isinstance(value, types.ModuleType) and self._is_own_code(_find_fingerprinted_module(value)):
                    modules.append(value)
                self.add_value(value)

    def _add_fingerprint_file(self, file: str | None) -> None:
        """Add a whole module and the project's modules that it imports, at the top or elsewhere."""
        if file is None or not self._is_own_code(file) or file in self._files:
            return
        self._files.add(file)
        path = Path(file)
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # not Python source
            self._update(path.read_bytes())
            return
        self._update(ast.dump(tree).encode())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._add_fingerprint_import(alias.name, path.parent)
            elif isinstance(node, ast.ImportFrom):
                start = path.parents[node.level - 1] if node.level else path.parent
                for alias in node.names:
                    self._add_fingerprint_import(f"{node.module}.{alias.name}" if node.module else alias.name, start)

    def _add_fingerprint_import(self, name: str, start: Path) -> None:
        parts = name.split(".")
        for base in dict.fromkeys((start.resolve(), self._root)):
            for length in range(1, len(parts) + 1):
                path = base.joinpath(*parts[:length])
                for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
                    if file.is_file():
                        self._add_fingerprint_file(str(file))

    def _add_fingerprint_name(self, value: Any) -> None:
        self._update(f"{value.__module__}.{value.__qualname__}\0".encode())

    def _is_own_code(self, file: str | None) -> bool:
        if file is None:
            return False
        path = Path(file).resolve()
        return path.is_relative_to(self._root) and "site-packages" not in path.parts


def _iterate_fingerprinted_names(code: types.CodeType) -> Iterable[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _iterate_fingerprinted_names(constant)


def _is_fingerprint_constant(value: Any) -> bool:
    kinds = () if isinstance(value, type) else type(value).__mro__[:-1]
    return isinstance(value, PLAIN_TYPES) or any(kind.__module__ in TEXT_MODULES for kind in kinds)


def _find_fingerprinted_module(module: types.ModuleType) -> str | None:
    """A module's file, or its folder if it is a package without a file."""
    return getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)


def _read_fingerprinted_source(value: Any) -> bytes:
    """The source without comments, layout and decorators; the bytecode if there is no source."""
    try:
        text = textwrap.dedent(
            inspect.getsource(getattr(value, "__code__", value))
        )  # not the source of a wrapped function
        tree = ast.parse(text)
    except (OSError, TypeError, SyntaxError):
        code = getattr(value, "__code__", None)
        return b"" if code is None else b"".join(_describe_fingerprinted_bytecode(code))
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            node.decorator_list = []
    return ast.dump(tree).encode()


def _describe_fingerprinted_bytecode(code: types.CodeType) -> Iterable[bytes]:
    """The bytecode of a function without source, as in a notebook."""
    yield code.co_code + repr(code.co_names).encode()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _describe_fingerprinted_bytecode(constant)
        else:
            yield repr(constant).encode()


def _find_fingerprinted_file(kind: type) -> str | None:
    try:
        return inspect.getfile(kind)
    except (OSError, TypeError):
        return None
