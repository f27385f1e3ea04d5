"""Processes for tasks that need not import flytekit, pandas and scikit-learn again: forks of one that has.

A task's process imports them for six of its seven seconds, and flytekit twice. Each fork runs the container's
arguments by flytekit's own entry points, with a folder, variables and output of its own; nothing of a project was
imported before.
That a task runs in a process that is wholly new, one test shows for all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol


class Process(Protocol):
    """What a container is, to the small Flyte."""

    @property
    def pid(self) -> int: ...

    def kill(self) -> None: ...

    def wait(self) -> int: ...


class Fork:
    """One fork."""

    def __init__(self, pid: int, code_file: Path) -> None:
        self.pid = pid
        self._code_file = code_file

    def kill(self) -> None:
        with suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code, or the negative number of the signal that ended it: comes through a pipe when it has ended."""
        return int(self._code_file.read_text())


class Preloaded:
    """The process that has imported all that, and is asked for forks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._temporary = tempfile.TemporaryDirectory()
        command = [sys.executable, "-c", f"import {__name__} as module; module.serve()"]
        root = Path(__file__).parents[3]
        self._process = subprocess.Popen(
            command,
            cwd=root,
            env={**os.environ, "TMPDIR": self._temporary.name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str], log: Path) -> Fork:
        """Run one of flytekit's programs in a fork."""
        pipe = log.with_name("exit-code")
        os.mkfifo(pipe)
        job = {"command": command, "cwd": str(cwd), "environment": environment, "log": str(log), "pipe": str(pipe)}
        with self._lock:
            assert self._process.stdin
            assert self._process.stdout
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            return Fork(int(self._process.stdout.readline()), pipe)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._temporary.cleanup()


@contextmanager
def preloaded() -> Iterator[Preloaded]:
    process = Preloaded()
    try:
        yield process
    finally:
        process.close()


def serve() -> None:
    """Take jobs from stdin, a line each; answer with the fork's number. Its exit code goes into the job's pipe."""
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    from flytekit.bin import entrypoint  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the ones that wait
    for line in sys.stdin:
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _run(json.loads(line))


def _run(job: dict[str, Any]) -> None:
    pid = os.fork()
    if not pid:
        _become(job)
    print(pid, flush=True)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    Path(job["pipe"]).write_text(str(code))
    os._exit(0)


def _become(job: dict[str, Any]) -> None:
    from flytekit.bin import entrypoint

    programs = {
        "pyflyte-fast-execute": entrypoint.fast_execute_task_cmd,
        "pyflyte-execute": entrypoint.execute_task_cmd,
        "pyflyte-map-execute": entrypoint.map_execute_task_cmd,
    }

    def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Any:
        added = (environment or {}).get("PYTHONPATH", "").split(os.pathsep)
        sys.path += [path for path in added if path and path not in sys.path]
        sys.argv = list(command)
        return programs[Path(command[0]).name]()

    entrypoint._run_subprocess = run
    code: Any = 70
    try:
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for output in (1, 2):
            os.dup2(log, output)
        os.chdir(job["cwd"])
        os.environ.clear()
        os.environ.update(job["environment"])
        code = run(job["command"])
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(bool(code)))
