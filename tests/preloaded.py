"""Processes without the seconds of their imports: forks of one that has imported what they need.

A command spends most of its CPU time on imports. Each fork has a folder, variables and output of its own. Nothing of
a project was imported before. Tests of the start itself, of memory and of imported modules start the real program.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "mlapp.cli.commands",
    "mlapp.prediction",
    "mlapp.serving.process.launch",
    "mlapp.serving.process.supervisor",
    "mlapp.training",
    "pandas",
    "prometheus_client",
    "pytest",
    "sklearn.linear_model",
    "uvicorn.protocols.http.httptools_impl",
)
"""What most commands import."""


class Fork:
    """A fork, with the methods of `subprocess.Popen`."""

    def __init__(self, command: Sequence[str], pid: int, exit_code: int) -> None:
        self.args = command
        self.pid = pid
        self.returncode: int | None = None
        self._exit_code = exit_code

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or the negative number of the signal that ended it."""
        if self.returncode is None:
            ended = select.poll()
            ended.register(self._exit_code, select.POLLIN)
            if not ended.poll(None if timeout is None else 1000 * timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(os.read(self._exit_code, 16))
            os.close(self._exit_code)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Preloaded:
    """A process that imports modules once, and then forks.

    Args:
        modules: what it imports.
        function: "module:function", called with the command in each fork.
        environment: variables of the process; the forks have their own.
    """

    def __init__(self, modules: Sequence[str], function: str, environment: Mapping[str, str] | None = None) -> None:
        self._lock = threading.Lock()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            arguments = f"{theirs.fileno()}, {tuple(modules)}, {function!r}"
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from tests.preloaded import serve_forks; serve_forks({arguments})"],
                cwd=ROOT,
                env=None if environment is None else {**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def start(
        self,
        command: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        stdout: IO[Any],
        stderr: IO[Any] | None = None,
    ) -> Fork:
        """Run a command in a fork. Both outputs go into one file by default."""
        job = {"command": [str(word) for word in command], "cwd": str(cwd), "environment": dict(environment)}
        reading, writing = os.pipe()
        outputs = [stdout.fileno(), (stderr or stdout).fileno(), writing]
        try:
            with self._lock:
                socket.send_fds(self._requests, [json.dumps(job).encode()], outputs)
                return Fork(command, int(self._requests.recv(16)), reading)
        finally:
            os.close(writing)

    def run(
        self, command: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a fork to its end, as `subprocess.run` does with `capture_output` and `text`."""
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            fork = self.start(command, cwd, environment, stdout, stderr)
            try:
                code = fork.wait(timeout)
            finally:
                fork.kill()
            outputs = []
            for file in (stdout, stderr):
                file.seek(0)
                outputs.append(file.read().decode())
        return subprocess.CompletedProcess(command, code, *outputs)

    def close(self) -> None:
        self._requests.close()  # its end
        self._process.wait()


@functools.cache
def preload_commands() -> Preloaded:
    """Forks that run `mlapp`, `pytest`, or the module whose name a command starts with."""
    preloaded = Preloaded(COMMANDS, "tests.preloaded:run_command")
    atexit.register(preloaded.close)
    return preloaded


def run_command(command: Sequence[str]) -> None:
    program, *arguments = command
    if program == "mlapp":
        from mlapp.cli import main

        main.run(arguments)
        return
    sys.path.insert(0, "")  # as `python -m` does
    if program == "pytest":
        import pytest

        sys.exit(pytest.main(arguments))
    runpy.run_module(program, run_name="__main__", alter_sys=True)


def serve_forks(descriptor: int, modules: Sequence[str], function: str) -> None:
    """Answer each request with a fork's process id, until the other end of the socket is closed."""
    for name in modules:
        importlib.import_module(name)
    module, _, attribute = function.partition(":")
    run = getattr(importlib.import_module(module), attribute)
    sys.path.remove("")  # the folder of `-c`
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that wait
    with socket.socket(fileno=descriptor) as requests:
        while True:
            job, outputs, *_ = socket.recv_fds(requests, 1 << 20, 3)
            if not job:
                return
            if not os.fork():
                _wait_for_fork(requests, json.loads(job), outputs, run)
            for output in outputs:
                os.close(output)


def _wait_for_fork(
    requests: socket.socket, job: dict[str, Any], outputs: list[int], run: Callable[[Sequence[str]], object]
) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *outputs, exit_code = outputs
    pid = os.fork()
    if not pid:
        os.close(exit_code)
        requests.close()
        _run_job(job, outputs, run)
    for output in outputs:
        os.close(output)
    requests.send(str(pid).encode())
    requests.close()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):  # nobody asks
        os.write(exit_code, str(code).encode())
    os._exit(0)


def _run_job(job: dict[str, Any], outputs: list[int], run: Callable[[Sequence[str]], object]) -> NoReturn:
    code: object = 70
    try:
        for number, output in enumerate(outputs, 1):
            os.dup2(output, number)
            os.close(output)
        os.chdir(job["cwd"])
        os.environ.clear()
        os.environ.update(job["environment"])
        sys.argv = list(job["command"])
        run(job["command"])
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
