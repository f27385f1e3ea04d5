"""Without flytekit, a command names the extra to install, or says that it is unavailable."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlapp import flyte


@pytest.mark.parametrize(
    ("python", "what", "todo"),
    [
        ((3, 12), "Flyte needs packages that are not installed.", "pip install 'mlapp-kit[flyte]'"),
        ((3, 13), "flytekit needs a Python before 3.13, and this is 3.13.", "Python 3.12"),
    ],
)
@pytest.mark.parametrize("command", [("train", "--remote"), ("train", "--engine", "flyte-local"), ("runs", "list")])
def test_what_to_install(
    command: tuple[str, ...],
    python: tuple[int, int],
    what: str,
    todo: str,
    project: Callable[..., Path],
    mlapp: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project()
    find = importlib.util.find_spec
    without = lambda name, *rest: None if name == "flytekit" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", without)
    monkeypatch.setattr(flyte, "sys", SimpleNamespace(version_info=python))
    ran = mlapp(*command)
    assert (ran.code, ran.err.splitlines()[0]) == (1, f"Error: {what}")
    assert todo in ran.err
