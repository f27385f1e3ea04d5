"""Several processes that share one socket. One that dies is replaced; on a change of the code all are.

The parent imports none of the user's code. Each worker has a pipe to say that it is ready, and its standard input
from the parent: when that ends, the parent is gone, and the worker goes too.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mlapp.errors import MlappError
from mlapp.reporting import Reporter
from mlapp.serving.serve_spec import ServeSpec

PAUSE = 0.5
"""Seconds before a worker that died is replaced, doubled up to `LONGEST` while it dies at once."""
LONGEST = 10.0
LOOK = 0.5
"""Seconds between two looks at the files."""
IGNORED = frozenset((".git", ".venv", "venv", ".mlapp", "__pycache__", "node_modules", ".mypy_cache", ".pytest_cache"))


class Supervisor:
    """The parent of `plan.settings.workers` processes.

    Args:
        tell: a line for the operator.
        watched: folders whose Python files and mlapp.yaml are watched; a change replaces the workers.
    """

    def __init__(self, plan: ServeSpec, listener: socket.socket, tell: Reporter, watched: Iterable[Path] = ()) -> None:
        self._plan = plan
        self._listener = listener
        self._tell = tell
        self._watched = list(watched)
        self._stopping = False
        self._failed = False
        self._told = False
        self._changed = asyncio.Event()
        self._workers: dict[int, asyncio.subprocess.Process] = {}
        self._metrics = Path(tempfile.mkdtemp(prefix="mlapp-metrics-"))

    def run_workers(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            MlappError: a worker could not start; it has said why.
        """
        try:
            asyncio.run(self._run_until_stopped())
        finally:
            shutil.rmtree(self._metrics, ignore_errors=True)
        if self._failed:
            raise MlappError("The server could not start.", "The lines above say why.")

    async def _run_until_stopped(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_worker, number)
        watcher = loop.create_task(self._watch_code()) if self._watched else None
        await asyncio.gather(*(self._keep_worker() for _ in range(self._plan.settings.workers)))
        if watcher is not None:
            watcher.cancel()

    def _stop_worker(self, number: int) -> None:
        self._stopping = True
        self._changed.set()
        for worker in list(self._workers.values()):
            if worker.returncode is None:
                worker.send_signal(number)

    async def _keep_worker(self) -> None:
        """Keep one worker alive."""
        pause = PAUSE
        while not self._stopping:
            started = time.monotonic()
            worker, is_ready = await self._start_worker()
            code = await worker.wait()
            self._forget_worker(worker.pid)
            if self._stopping:
                return
            if self._watched and code != 0:
                await self._changed.wait()  # the code is wrong: wait until it is fixed
            elif not is_ready and not self._told:
                self._failed = True
                self._stop_worker(signal.SIGTERM)
                return
            elif code != 0 or not self._watched:
                self._tell(f"Worker {worker.pid} ended ({_describe_exit(code)}); another takes its place.")
                pause = PAUSE if time.monotonic() - started > LONGEST else min(2 * pause, LONGEST)
                await asyncio.sleep(pause)

    async def _start_worker(self) -> tuple[asyncio.subprocess.Process, bool]:
        """Start a worker and wait until it is ready, or has ended."""
        reading, writing = os.pipe()
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "mlapp.serving.process.worker",
            str(self._listener.fileno()),
            str(writing),
            stdin=asyncio.subprocess.PIPE,
            pass_fds=(self._listener.fileno(), writing),
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(self._metrics)},
        )
        os.close(writing)
        self._workers[worker.pid] = worker
        assert worker.stdin is not None
        worker.stdin.write(msgspec.json.encode(self._plan) + b"\n")
        content = await asyncio.to_thread(_read_all, reading)
        if content and not self._told:
            self._told = True
            for line in msgspec.json.decode(content):
                self._tell(line)
        return worker, bool(content)

    def _forget_worker(self, pid: int) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        self._workers.pop(pid, None)
        mark_process_dead(pid, str(self._metrics))  # type: ignore[no-untyped-call]

    async def _watch_code(self) -> None:
        before = await asyncio.to_thread(_file_stamps, self._watched)
        while True:
            await asyncio.sleep(LOOK)
            after = await asyncio.to_thread(_file_stamps, self._watched)
            if after == before:
                continue
            changed = next((path for path, _ in after ^ before), "")
            before = after
            self._tell(f"{changed} has changed; loading again.")
            self._told = False
            self._changed.set()
            self._changed = asyncio.Event()
            for worker in list(self._workers.values()):
                if worker.returncode is None:
                    worker.terminate()


def _read_all(file: int) -> bytes:
    with os.fdopen(file, "rb") as pipe:
        return pipe.read()


def _file_stamps(folders: Iterable[Path]) -> set[tuple[str, int]]:
    """Every watched file with the time of its last change."""
    found = set()
    for root in folders:
        for folder, folders_in_it, files in os.walk(root):
            folders_in_it[:] = [name for name in folders_in_it if name not in IGNORED]
            for name in files:
                if name.endswith(".py") or name == "mlapp.yaml":
                    path = os.path.join(folder, name)
                    try:
                        found.add((path, os.stat(path).st_mtime_ns))
                    except OSError:  # ended in between
                        continue
    return found


def _describe_exit(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
