"""Processes for tasks that need not import flytekit, pandas and scikit-learn again.

A task's process imports them for six of its seven seconds, and flytekit twice. Each fork runs the container's
arguments by flytekit's own entry points. One test shows for all that a task runs in a process that is wholly new.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tests.preloaded import Preloaded

MODULES = ("flytekit.bin.entrypoint", "pandas", "pyarrow.parquet", "sklearn.linear_model")


class Process(Protocol):
    """What a container is, to the small Flyte."""

    @property
    def pid(self) -> int: ...

    def kill(self) -> None: ...

    def wait(self) -> int: ...


Start = Callable[[Sequence[str], Path, Mapping[str, str], Path], Process]
"""Starts a container's command in a folder, with variables and a file for its output."""


@contextmanager
def preloaded() -> Iterator[Start]:
    """Start one of flytekit's programs in a fork."""
    with tempfile.TemporaryDirectory() as temporary:  # flytekit makes folders at its import
        forks = Preloaded(MODULES, f"{__name__}:run_program", {"TMPDIR": temporary})

        def start(command: Sequence[str], cwd: Path, environment: Mapping[str, str], log: Path) -> Process:
            with log.open("wb") as output:
                return forks.start(command, cwd, environment, output)

        try:
            yield start
        finally:
            forks.close()


def run_program(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Any:
    """Run a program of flytekit in this process, and those that it starts."""
    from flytekit.bin import entrypoint

    programs = {
        "pyflyte-fast-execute": entrypoint.fast_execute_task_cmd,
        "pyflyte-execute": entrypoint.execute_task_cmd,
        "pyflyte-map-execute": entrypoint.map_execute_task_cmd,
    }
    entrypoint._run_subprocess = run_program
    added = (environment or {}).get("PYTHONPATH", "").split(os.pathsep)
    sys.path += [path for path in added if path and path not in sys.path]
    sys.argv = list(command)
    return programs[Path(command[0]).name]()
