"""Runs a task in the process that downloaded its code. flytekit would start a second one and import itself again.

flytekit imports this module through the entry point `flytekit.plugins`. The module changes only the container's program
`pyflyte-fast-execute`, and only for mlapp's tasks. flytekit starts a second process because the first one may have
imported older code of the project (flytekit/bin/entrypoint.py, `fast_execute_task_cmd`). Before mlapp's tasks, no code
of the project is imported.
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
"""The programs that `pyflyte-fast-execute` starts, and their functions in flytekit's module."""
RESOLVERS = "mlapp.flyte."
"""Start of the names of mlapp's resolvers, which find a task in a container."""
SIGTERM_EXIT_CODE = 128 + signal.SIGTERM


def replace_with_single_process() -> None:
    """Make flytekit's program run mlapp's tasks in its own process, if this version of flytekit allows that."""
    from flytekit.bin import entrypoint

    start_process: Callable[..., Any] | None = getattr(entrypoint, "_run_subprocess", None)
    if start_process is None:
        return
    programs = {name: getattr(entrypoint, function, None) for name, function in PROGRAMS.items()}

    def run_command(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Any:
        program = programs.get(Path(command[0]).name)
        if program is None or not _is_own_task(command):
            return start_process(command, environment)
        return _run_program_in_process(program, command, environment or {})

    entrypoint._run_subprocess = run_command


def _is_own_task(command: Sequence[str]) -> bool:
    position = command.index("--resolver") + 1 if "--resolver" in command else len(command)
    return position < len(command) and command[position].startswith(RESOLVERS)


def _run_program_in_process(program: Callable[[], Any], command: Sequence[str], environment: Mapping[str, str]) -> Any:
    """Run one of flytekit's programs; it ends the process."""
    # The first process of a container ignores SIGTERM without a handler. flytekit's second process would end at once.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(SIGTERM_EXIT_CODE))
    os.environ.update(environment)
    new_paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    sys.path[1:1] = new_paths  # after the program's folder, as Python does
    sys.argv = list(command)
    return program()


if Path(sys.argv[0]).name == PROGRAM:
    replace_with_single_process()
