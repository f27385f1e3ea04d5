"""Fixtures of all tests: the command line in this process, and temporary projects."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlapp.cli import main

pytest_plugins = ["tests.core_install", "tests.leftovers"]

FLOWERS = """
import pandas as pd
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlapp import App

app = App("flowers", target="target")


@app.data_reader
def read(limit: int | None = None) -> pd.DataFrame:
    table = load_iris(as_frame=True).frame
    return table.sample(frac=1, random_state=0).head(limit)


@app.model
def build(C: float = 1.0) -> LogisticRegression:
    return LogisticRegression(C=C, max_iter=1000)
"""


TESTS = Path(__file__).parent
START = Path.cwd()
UMASK = os.umask(0o022)
os.umask(UMASK)
LONGEST = (
    "docker",
    "flyte",
    "unit.cli.test_templates",
    "integration.frameworks.test_templates",
    "unit.deploy.k8s.test_ship",
    "unit.flyte.test_local",
    "unit.bundle.test_bundle",
    "integration.serving.test_openapi",
    "unit.deploy.kserve.test_deploy",
    "unit.tuning.test_tuning",
    "integration.serving.test_mlserver",
    "integration.serving.test_gunicorn",
    "unit.monitoring.test_monitor",
    "serving",
    "unit.deploy.k8s.test_operations",
    "unit.training.test_round_trip",
)
"""The groups that start first. A long one at the end would run while the other cores have nothing to do."""


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a long value, such as a program or a body of 2 MB, by its length: the id would hold all of it."""
    return f"{argname} of {len(val)}" if isinstance(val, (str, bytes)) and len(val) > 100 else None


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in this hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a module in one worker: it imports, trains and starts its servers once. All of Flyte's share a group."""
    ranks = {group: rank for rank, group in enumerate(LONGEST)}

    def rank_group(item: pytest.Item) -> int:
        group = item.get_closest_marker("xdist_group")
        return ranks.get(group.args[0], len(ranks)) if group else len(ranks)

    for item in items:
        kind, *folders, _ = item.path.relative_to(TESTS).parts
        if kind != "cluster" and item.get_closest_marker("xdist_group") is None:
            is_flyte = (kind, *folders) == ("integration", "flyte")
            group = "flyte" if is_flyte else ".".join((kind, *folders, item.path.stem))
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=rank_group)


def pytest_collection() -> None:
    """Spare the imports of all test modules their garbage collections: what they make stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Spare each garbage collection during the tests a million objects that stay."""
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the tests that are left out because they need a cluster."""
    for name, tests in {
        "MLAPP_TEST_KUBECONFIG": "tests/cluster",
        "MLAPP_TEST_FLYTE_CONFIG": "tests/cluster/flyte",
    }.items():
        if name not in os.environ:
            terminalreporter.write_line(f"{tests} was left out: {name} names none.")


@pytest.fixture(autouse=True)
def restore_process() -> Iterator[None]:
    """Undo what a test leaves in its process for the next ones.

    The folder is that of the run: an App outside a project reads its mlapp.yaml. flytekit handles SIGINT itself, and
    typer uncaught exceptions.
    """
    environ, path = dict(os.environ), list(sys.path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
    loggers = (logging.root, logging.getLogger("mlapp"))
    levels, disabled = [logger.level for logger in loggers], logging.root.manager.disable
    hook = sys.excepthook
    yield
    os.chdir(START)
    os.umask(UMASK)
    if os.environ != environ:
        os.environ.clear()
        os.environ.update(environ)
    sys.path[:] = path
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    logging.disable(disabled)
    sys.excepthook = hook


@dataclass(frozen=True)
class Ran:
    """The result of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def mlapp(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run `mlapp` with these arguments in this process, as the shell would."""

    def run(*arguments: str, cwd: Path | None = None) -> Ran:
        if cwd is not None:
            monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["mlapp", *arguments])
        capfd.readouterr()
        try:
            main.run()
            code = 0
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 0 if exit.code is None else 1
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Write a project, with the flowers app unless another source is given, and go there."""

    def write(app: str | None = FLOWERS, **files: str) -> Path:
        root = tmp_path / "project"
        root.mkdir(exist_ok=True)
        if app is not None:
            (root / "app.py").write_text(textwrap.dedent(app), encoding="utf-8")
        for name, text in files.items():
            (root / name.replace("__", ".")).write_text(textwrap.dedent(text), encoding="utf-8")
        monkeypatch.chdir(root)
        return root

    path, modules = list(sys.path), set(sys.modules)
    yield write
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
