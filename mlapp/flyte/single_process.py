"""Run a task in the process that has downloaded its code. flytekit starts a second one, which imports flytekit again.

flytekit imports this module by the entry point `flytekit.plugins` whenever it is imported itself. The module changes
only the container's program `pyflyte-fast-execute`, and only for mlapp's tasks. flytekit's reason for a second process
is that the first may have imported older code of the project (flytekit/bin/entrypoint.py, `fast_execute_task_cmd`);
before mlapp's tasks, nothing of a project is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PROGRAM = "pyflyte-fast-execute"
PROGRAMS = {"pyflyte-execute": "execute_task_cmd", "pyflyte-map-execute": "map_execute_task_cmd"}
"""The programs that it starts, and their functions in flytekit's module."""
RESOLVERS = "mlapp.flyte."
"""Start of the names of mlapp's resolvers, which find a task in a container."""
TERMINATED = 128 + signal.SIGTERM


def replace_with_single_process() -> None:
    """Make flytekit's program run mlapp's tasks itself, unless this flytekit starts the second process otherwise."""
    from flytekit.bin import entrypoint

    start_process: Callable[..., Any] | None = getattr(entrypoint, "_run_subprocess", None)
    if start_process is None:
        return
    programs = {name: getattr(entrypoint, function, None) for name, function in PROGRAMS.items()}

    def run_command(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Any:
        program = programs.get(Path(command[0]).name)
        if program is None or not _is_own_task(command):
            return start_process(command, environment)
        return _run_here(program, command, environment or {})

    entrypoint._run_subprocess = run_command


def _is_own_task(command: Sequence[str]) -> bool:
    at = command.index("--resolver") + 1 if "--resolver" in command else len(command)
    return at < len(command) and command[at].startswith(RESOLVERS)


def _run_here(program: Callable[[], Any], command: Sequence[str], environment: Mapping[str, str]) -> Any:
    """Run one of flytekit's programs; it ends the process."""
    # The first process of a container ignores SIGTERM unless it handles it. flytekit's second process ends at once.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(TERMINATED))
    os.environ.update(environment)
    added = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    sys.path[1:1] = added  # behind the program's folder, as Python itself does it
    sys.argv = list(command)
    return program()


if Path(sys.argv[0]).name == PROGRAM:
    replace_with_single_process()
