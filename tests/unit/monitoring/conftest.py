"""A project of loans that is trained once for a module, and a server's recorder for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.monitoring.service import LOANS, YAML, Service


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the store lies, once the first test has trained."""
    return tmp_path_factory.mktemp("trained") / ".mlapp"


@pytest.fixture
def service(
    mlapp: Callable[..., Any], project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, trained: Path
) -> Service:
    root = project(LOANS, mlapp__yaml=YAML)
    if trained.is_dir():
        shutil.copytree(trained, root / ".mlapp")
    else:
        assert mlapp("train").code == 0
        shutil.copytree(root / ".mlapp", trained)
    return Service(root, monkeypatch)
