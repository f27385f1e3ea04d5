"""Runs several worker processes that share one socket. Replaces a worker that dies, and all after a change of the code.

A worker keeps serving until the one that replaces it is ready. So neither code nor a model that cannot be loaded, for
whatever reason, ends a server that works.

Workers are forked from the parent if they can share its models (`preload`). Otherwise the parent imports none of the
user's code, and each worker loads its own model. When the served alias moves, one of the forked workers switches to the
new version first. Then the parent loads it, and new workers replace the old ones one at a time.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from mlapp.errors import MlappError
from mlapp.reporting import Reporter
from mlapp.serving.process.worker_process import ForkServer, Worker, spawn_worker
from mlapp.serving.serve_spec import ServeSpec
from mlapp.temporary_folders import create_process_folder

PAUSE = 0.5
"""Seconds before a dead worker is replaced; doubled up to `LONGEST` while the new workers die within `LONGEST`."""
LONGEST = 10.0
CHECK_INTERVAL = 0.5
"""Seconds between two checks of the watched files."""
IGNORED = frozenset((".git", ".venv", "venv", ".mlapp", "__pycache__", "node_modules", ".mypy_cache", ".pytest_cache"))


class Supervisor:
    """The parent of `plan.settings.workers` processes.

    Args:
        report: receives lines for the operator.
        watched_folders: folders whose Python files and mlapp.yaml are watched. A change replaces the workers.
    """

    def __init__(
        self, plan: ServeSpec, listener: socket.socket, report: Reporter, watched_folders: Iterable[Path] = ()
    ) -> None:
        self._plan = plan
        self._listener = listener
        self._report = report
        self._watched_folders = list(watched_folders)
        self._stopping = False
        self._failed = False
        self._has_announced = False
        self._changed = asyncio.Event()
        self._starting: Worker | None = None
        """The worker that will replace another."""
        self._workers: dict[int, Worker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fork_server: ForkServer | None = None
        self._renewing = asyncio.Lock()
        self._metrics = create_process_folder("metrics")

    def run_workers(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            MlappError: a model cannot be loaded, or a worker could not start and has printed the reason.
        """
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self._metrics)
        try:
            self._preload_models()
            asyncio.run(self._supervise_until_stopped())
        finally:
            shutil.rmtree(self._metrics, ignore_errors=True)
        if self._failed:
            raise MlappError("The server could not start.", "Fix the error above.")

    def _preload_models(self) -> None:
        """Load the models in this process, so that the workers share them."""
        if self._plan.reload or not self._plan.settings.preload:
            return
        from mlapp.serving.process.preload import preload_models  # lazy: a parent that loads nothing stays small

        preloaded = preload_models(self._plan)
        if preloaded is not None:
            self._fork_server = ForkServer(self._plan, self._listener, preloaded)

    async def _supervise_until_stopped(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_workers, number)
        loop.add_signal_handler(signal.SIGCHLD, self._notice_worker_ends)
        watcher = loop.create_task(self._watch_code_changes()) if self._watched_folders else None
        for place in range(self._plan.settings.workers):
            self._keep_supervisor_task(asyncio.create_task(self._keep_worker(place)))
        while self._tasks:
            ended, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        if watcher is not None:
            watcher.cancel()

    def _keep_supervisor_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stop_workers(self, number: int) -> None:
        self._stopping = True
        self._changed.set()
        for worker in list(self._workers.values()):
            worker.send_signal(number)

    def _notice_worker_ends(self) -> None:
        for worker in list(self._workers.values()):
            worker.check_end()

    async def _keep_worker(self, place: int, first: Worker | None = None) -> None:
        """Start a worker, and replace it when it dies.

        Args:
            place: its number; worker 0 watches the alias.
            first: a running worker to begin with.
        """
        pause = PAUSE
        while not self._stopping:
            started, changed = time.monotonic(), self._changed
            try:
                worker = first or self._start_worker(place)
            except OSError as error:  # too many processes or open files, or too little memory
                self._report(f"A worker could not be started ({error.strerror}); it is tried again.")
                pause = min(2 * pause, LONGEST)
                await asyncio.sleep(pause)
                continue
            first = None
            await worker.reported.wait()
            if worker.lines is not None and not self._has_announced:
                self._has_announced = True
                for line in worker.lines:
                    self._report(line)
            await worker.ended.wait()
            self._forget_worker(worker.pid)
            code = worker.exit_code
            if self._stopping or worker.is_leaving:
                return
            if worker.lines is None and self._watched_folders:
                await changed.wait()  # the code is wrong: wait until it is fixed
            elif worker.lines is None and not self._has_announced:
                self._failed = True
                self._stop_workers(signal.SIGTERM)
                return
            else:
                self._report(f"Worker {worker.pid} ended ({_describe_worker_exit(code)}); another takes its place.")
                pause = PAUSE if time.monotonic() - started > LONGEST else min(2 * pause, LONGEST)
                await asyncio.sleep(pause)

    def _start_worker(self, place: int) -> Worker:
        if self._fork_server is None:
            worker = spawn_worker(self._plan, self._listener)
        else:
            worker = self._fork_server.fork_worker(watches=place == 0)
            worker.on_switch = lambda: self._keep_supervisor_task(asyncio.create_task(self._renew_workers()))
        worker.place = place
        self._workers[worker.pid] = worker
        return worker

    async def _renew_workers(self) -> None:
        """Load the version that one worker has switched to, and replace all workers by new ones."""
        async with self._renewing:
            if not self._stopping and self._load_supervised_models_again():
                await self._replace_workers(list(self._workers.values()))

    async def _replace_workers(self, workers: Iterable[Worker]) -> None:
        """Replace workers by new ones. Each keeps serving until its successor is ready."""
        for old in workers:
            try:
                fresh = self._starting = self._start_worker(old.place)
            except OSError as error:
                self._report(f"Worker {old.pid} keeps serving, because no other can be started: {error.strerror}")
                return
            fresh.is_leaving = True  # until it is ready
            self._keep_supervisor_task(asyncio.create_task(self._keep_worker(old.place, fresh)))
            await fresh.reported.wait()
            self._starting = None
            if self._stopping:
                return
            if fresh.lines is None:
                self._report(f"Worker {fresh.pid} could not start; worker {old.pid} keeps serving.")
                if self._watched_folders:
                    return  # the same code would fail again
                continue
            leaving = fresh if old.ended.is_set() else old
            fresh.is_leaving = False
            leaving.is_leaving = True
            leaving.send_signal(signal.SIGTERM)

    def _load_supervised_models_again(self) -> bool:
        """Reload the models in this process. Blocks the event loop, but signals still reach the workers at once."""
        from mlapp.serving.process.preload import preload_models

        assert self._fork_server is not None
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            signal.signal(number, lambda number, frame: self._stop_workers(number))
        try:
            preloaded = preload_models(self._plan)
        except BaseException as error:  # the app and the libraries that read model files can raise anything
            reason = error.what if isinstance(error, MlappError) else repr(error)
            self._report(f"The workers keep serving the models that they have loaded: {reason}")
            return False
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if preloaded is not None:
            self._fork_server.preloaded = preloaded
        return preloaded is not None

    def _forget_worker(self, pid: int) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        self._workers.pop(pid, None)
        mark_process_dead(pid, str(self._metrics))  # type: ignore[no-untyped-call]

    async def _watch_code_changes(self) -> None:
        before = await asyncio.to_thread(_list_watched_file_stamps, self._watched_folders)
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            after = await asyncio.to_thread(_list_watched_file_stamps, self._watched_folders)
            if after == before:
                continue
            changed = next((path for path, _ in after ^ before), "")
            before = after
            self._report(f"{changed} has changed; reloading.")
            self._has_announced = False
            self._keep_supervisor_task(asyncio.create_task(self._reload_workers()))

    async def _reload_workers(self) -> None:
        """Replace all workers after a change of the code, and start those that could not start before."""
        if self._starting is not None:  # of the code before the change, which may load forever
            self._starting.send_signal(signal.SIGKILL)
        async with self._renewing:
            if self._stopping:
                return
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
            workers = list(self._workers.values())
            for worker in workers:
                if worker.lines is None:
                    worker.send_signal(signal.SIGKILL)
            await self._replace_workers([worker for worker in workers if worker.lines is not None])


def _list_watched_file_stamps(folders: Iterable[Path]) -> set[tuple[str, int]]:
    """Every watched file with its modification time."""
    stamps = set()
    for root in folders:
        for folder, subfolders, files in os.walk(root):
            subfolders[:] = [name for name in subfolders if name not in IGNORED]
            for name in files:
                if name.endswith(".py") or name == "mlapp.yaml":
                    path = os.path.join(folder, name)
                    try:
                        stamps.add((path, os.stat(path).st_mtime_ns))
                    except OSError:  # deleted in the meantime
                        continue
    return stamps


def _describe_worker_exit(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
