"""A worker process of a server: spawned, which loads its own model, or forked from a parent that has loaded it.

Each has a pipe to its parent, with a line of JSON for what it reports: first, once it is ready, the lines for the
operator; later, an empty list for each switch to another version. The parent holds the other end of a pipe, or of the
worker's standard input: when that ends, the parent is gone, and the worker goes too.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from mlapp.errors import MlappError
from mlapp.serving.serve_spec import ServeSpec

if TYPE_CHECKING:
    from mlapp.serving.inference.served_model import ServedModel

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class Worker:
    """A worker process, seen from its parent's event loop.

    Args:
        pid: its process id.
        poll: gives its exit code once it has ended, and None before.
        reading: the end of its pipe.
    """

    def __init__(self, pid: int, poll: Callable[[], int | None], reading: int) -> None:
        self.pid = pid
        self.place = 0
        """Its number among the workers."""
        self.is_leaving = False
        """Another has taken its place."""
        self.ended = asyncio.Event()
        self.reported = asyncio.Event()
        """It is ready, or has ended without being so."""
        self.lines: list[str] | None = None
        """What it says once it is ready; None before."""
        self.on_switch: Callable[[], None] | None = None
        self._poll = poll
        self._reading = reading
        self._content = b""
        asyncio.get_running_loop().add_reader(reading, self._read_report)

    def send_signal(self, number: int) -> None:
        if self._poll() is None:
            os.kill(self.pid, number)

    def check_end(self) -> None:
        """Called when a child has ended: perhaps this one."""
        if self._poll() is not None:
            self.ended.set()

    @property
    def exit_code(self) -> int:
        """As of subprocess: a signal's number is negative."""
        return self._poll() or 0

    def _read_report(self) -> None:
        content = os.read(self._reading, 65536)
        if not content:
            asyncio.get_running_loop().remove_reader(self._reading)
            os.close(self._reading)
            self.reported.set()
            return
        *lines, self._content = (self._content + content).split(b"\n")
        for line in lines:
            if self.lines is None:
                self.lines = msgspec.json.decode(line)
                self.reported.set()
            elif self.on_switch is not None:
                self.on_switch()


def report(pipe: int, lines: list[str]) -> None:
    """Tell the parent, in the worker."""
    os.write(pipe, msgspec.json.encode(lines) + b"\n")


def spawn_worker(plan: ServeSpec, listener: socket.socket) -> Worker:
    """Start a worker that imports the app and loads the model itself."""
    reading, writing = os.pipe()
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "mlapp.serving.process.worker", str(listener.fileno()), str(writing)],
        stdin=subprocess.PIPE,
        pass_fds=(listener.fileno(), writing),
    )
    os.close(writing)
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(plan) + b"\n")
    process.stdin.flush()
    return Worker(process.pid, process.poll, reading)


class ForkServer:
    """Forks workers from this process.

    Args:
        models: that they share, by the names of their apps.
    """

    def __init__(self, plan: ServeSpec, listener: socket.socket, models: Mapping[str, ServedModel]) -> None:
        self.models = models
        self._plan = plan
        self._listener = listener
        self._alive = os.pipe()
        """Its reading end tells the workers that this process has ended."""

    def fork_worker(self, *, watches: bool) -> Worker:
        """Start a worker with this process's models.

        Args:
            watches: it looks whether the served alias moves.
        """
        reading, writing = os.pipe()
        plan = self._plan
        if not watches:
            plan = msgspec.structs.replace(plan, settings=msgspec.structs.replace(plan.settings, refresh=0.0))
        process = multiprocessing.get_context("fork").Process(target=self._serve, args=(plan, writing, reading))
        # Until the child has handlers of its own, a signal would reach the parent's event loop.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(writing)
        assert process.pid is not None
        return Worker(process.pid, lambda: process.exitcode, reading)

    def _serve(self, plan: ServeSpec, writing: int, reading: int) -> None:
        """Serve, in the child."""
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(reading)
        os.close(self._alive[1])
        _seed_numpy()
        sys.exit(serve_plan(plan, self._listener, writing, self.models, parent=self._alive[0]))


def serve_plan(plan: ServeSpec, listener: socket.socket, pipe: int, models: Any = None, *, parent: int) -> int:
    """Serve in this process, a worker; returns its exit code.

    Args:
        pipe: to report to the parent.
        models: those that are loaded already.
        parent: ends when the parent has ended.
    """
    from mlapp.serving.process.launch import launch_server

    try:
        launch_server(
            plan,
            listener,
            lambda lines: report(pipe, lines),
            models or {},
            parent=parent,
            switched=lambda: report(pipe, []),
        )
    except MlappError as error:
        return print_failure(error)
    except Exception:
        logging.getLogger("mlapp.serving").exception("a worker failed")
        return 1
    return 0


def print_failure(error: MlappError) -> int:
    """Tell the operator why a worker cannot start; returns its exit code."""
    print(f"Error: {error.what}\n{error.todo}", file=sys.stderr, flush=True)
    return error.exit_code


def _seed_numpy() -> None:
    """Give the child random numbers of its own; Python's `random` does that itself."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
