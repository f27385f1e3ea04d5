"""Run the unit tests with mlapp-kit[sklearn] alone: `make test-core`, which sets MLAPP_TEST_CORE.

A file that imports a package of another extra is left out. A test that reaches one, or that is marked with
`pytest.mark.needs("package")`, is skipped. Without the variable none of this happens: in the full environment a missing
package is a failure.
"""

from __future__ import annotations

import ast
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from mlapp.errors import MissingExtraError

IS_ACTIVE = "MLAPP_TEST_CORE" in os.environ
NEEDED_BY = {"mlapp.flyte": "flytekit"}
"""The package that a module of mlapp imports at its top."""


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out a file whose imports are not installed."""
    if not IS_ACTIVE or collection_path.suffix != ".py":
        return None
    return True if any(not _is_installed(name) for name in _imported_packages(collection_path)) else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Skip a test that needs an extra which is not installed, or whose fixtures do."""
    absent = [name for mark in item.iter_markers("needs") for name in mark.args if not _is_installed(name)]
    if IS_ACTIVE and absent:
        pytest.skip(f"{', '.join(absent)} is not installed")
    return (yield from _skip_without_extra())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Skip a test that reaches an extra which is not installed."""
    return (yield from _skip_without_extra())


def leave_out(message: str) -> NoReturn:
    """Skip a test that lacks a program of this machine; in CI it fails, except with the core install.

    Args:
        told: what is missing, and which script installs it.
    """
    if "CI" in os.environ and not IS_ACTIVE:
        pytest.fail(message)
    pytest.skip(message)


def _skip_without_extra() -> Iterator[None]:
    try:
        return (yield)
    except (ModuleNotFoundError, MissingExtraError) as error:
        if IS_ACTIVE:
            pytest.skip(str(error))
        raise


def _imported_packages(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(NEEDED_BY.get(node.module, node.module.partition(".")[0]))
    return names


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
