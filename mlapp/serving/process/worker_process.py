"""A worker process of a server: spawned, with its own model, or forked, with the model of its parent.

Each worker sends lines of JSON through a pipe to its parent: a list of lines for the operator when it is ready, and
later an empty list for each switch to another version. The parent holds the writing end of another pipe, or of the
worker's standard input. When it is closed, the parent has exited, and the worker exits too.
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
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from mlapp.errors import MlappError
from mlapp.printable_text import make_printable_line
from mlapp.serving.serve_spec import ServeSpec

if TYPE_CHECKING:
    from mlapp.serving.process.launch import Preloaded

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class Worker:
    """A worker process, managed in its parent's event loop.

    Args:
        pid: its process id.
        poll: returns its exit code after it has ended, and None before.
        reading: the reading end of its pipe.
    """

    def __init__(self, pid: int, poll: Callable[[], int | None], reading: int) -> None:
        self.pid = pid
        self.place = 0
        """Its number among the workers."""
        self.is_leaving = False
        """Whether another worker replaces it, so that its end is no failure."""
        self.ended = asyncio.Event()
        self.reported = asyncio.Event()
        """Set when it is ready, or has ended before."""
        self.lines: list[str] | None = None
        """The lines that it reported when it became ready; None before."""
        self.on_switch: Callable[[], None] | None = None
        self._poll = poll
        self._reading = reading
        self._content = b""
        asyncio.get_running_loop().add_reader(reading, self._read_worker_report)

    def send_signal(self, number: int) -> None:
        if self._poll() is None:
            os.kill(self.pid, number)

    def check_end(self) -> None:
        """Check whether this worker has ended. Called when any child ends."""
        if self._poll() is not None:
            self.ended.set()

    @property
    def exit_code(self) -> int:
        """As in subprocess, a signal is a negative number."""
        return self._poll() or 0

    def _read_worker_report(self) -> None:
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


def report_to_parent(pipe: int, lines: list[str]) -> None:
    """Send a report from the worker to its parent."""
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
        preloaded: the projects and models that the workers share.
    """

    def __init__(self, plan: ServeSpec, listener: socket.socket, preloaded: Preloaded) -> None:
        self.preloaded = preloaded
        self._plan = plan
        self._listener = listener
        self._alive = os.pipe()
        """The workers read its end, so that they notice when this process exits."""

    def fork_worker(self, *, watches: bool) -> Worker:
        """Start a worker with this process's models.

        Args:
            watches: whether it watches the served alias.
        """
        reading, writing = os.pipe()
        plan = self._plan
        if not watches:
            plan = msgspec.structs.replace(plan, settings=msgspec.structs.replace(plan.settings, refresh=0.0))
        process = multiprocessing.get_context("fork").Process(
            target=self._serve_in_forked_worker, args=(plan, writing, reading)
        )
        # Before the child has its own handlers, a signal to it would reach the parent's event loop.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(writing)
        assert process.pid is not None
        return Worker(process.pid, lambda: process.exitcode, reading)

    def _serve_in_forked_worker(self, plan: ServeSpec, writing: int, reading: int) -> None:
        """Serve, in the child."""
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(reading)
        os.close(self._alive[1])
        _seed_worker_process_numpy()
        sys.exit(serve_in_worker(plan, self._listener, writing, self.preloaded, parent=self._alive[0]))


def serve_in_worker(
    plan: ServeSpec, listener: socket.socket, pipe: int, preloaded: Preloaded | None = None, *, parent: int
) -> int:
    """Serve in this worker process; returns its exit code.

    Args:
        pipe: to report to the parent.
        preloaded: the models that the parent has loaded.
        parent: a file descriptor that reaches its end when the parent exits.
    """
    from mlapp.serving.process.launch import launch_server

    try:
        launch_server(
            plan,
            listener,
            lambda lines: report_to_parent(pipe, lines),
            preloaded,
            parent=parent,
            on_switch=lambda: report_to_parent(pipe, []),
        )
    except MlappError as error:
        return print_worker_process_failure(error)
    except Exception:  # a bug of mlapp or of a library: the parent sees only the exit code, so log it here
        logging.getLogger("mlapp.serving").exception("a worker failed")
        return 1
    return 0


def print_worker_process_failure(error: MlappError) -> int:
    """Print the error of a worker that cannot start; returns its exit code."""
    text = f"Error: {make_printable_line(error.what)}\n{make_printable_line(error.todo)}"
    print(text, file=sys.stderr, flush=True)
    return error.exit_code


def _seed_worker_process_numpy() -> None:
    """Reseed NumPy's generator in the child. Python's `random` reseeds itself."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
