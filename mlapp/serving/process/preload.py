"""Models that a server's parent loads once, for workers that are forked from it and share its memory.

A fork copies no memory until one side writes to it, and no threads: what a library's threads, devices or connections
are needed for fails in the child. So the parent loads a model only where its framework says that it survives a fork,
and lets each worker load its own where the app opened sockets or started threads on import.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from mlapp import frameworks
from mlapp.project import Project
from mlapp.serving.inference.served_model import ServedModel, load_served_model
from mlapp.serving.process.launch import choose_context
from mlapp.serving.serve_spec import ServeSpec
from mlapp.store.folder_storage import FolderStorage

log = logging.getLogger("mlapp.serving")
UNFIT = ("torch", "tensorflow", "jax", "onnxruntime", "grpc", "obstore", "pyspark", "ray")
"""Modules with threads or devices that a forked child lacks, and no way to begin again in it."""
LATER = (
    "uvloop",
    "httptools",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.http.h11_impl",
    "mlapp.serving.fast_path.protocol",
)
HARMLESS = frozenset(("jemalloc_bg_thd",))
"""Names of threads that begin again in a child."""
MOMENT = 0.5
"""Seconds in which the threads of a team end after the thread that it served."""
DESCRIPTORS = Path("/proc/self/fd")
TASKS = Path("/proc/self/task")


def preload_models(plan: ServeSpec) -> Mapping[str, ServedModel] | None:
    """The plan's models by the names of their apps, loaded in this process; None where each worker has to load them.

    Raises:
        MlappError: an app cannot be imported, or a model cannot be loaded.
    """
    found = plan.open_projects()
    if sys.platform != "linux" or not plan.settings.preload or plan.reload or not _survive_fork(plan, found):
        return None
    start, before = Path.cwd(), _count_sockets()
    models: dict[str, ServedModel] = {}
    for project in found:
        with choose_context(found, project)():
            app = project.app
        with ThreadPoolExecutor(1) as thread:  # OpenMP keeps a team for each thread that used it, until it ends
            models[app.name] = thread.submit(_load_model, plan, found, project).result()
    if len(found) > 1:
        os.chdir(start)
    obstacle = _find_obstacle(before)
    if obstacle is not None:
        log.warning("each worker loads its own model, because the app %s; see serve.preload", obstacle)
        return None
    _import_later_modules(plan)
    gc.collect()
    gc.freeze()  # the children's garbage collector does not write to these objects
    return models


def _survive_fork(plan: ServeSpec, found: Sequence[Project]) -> bool:
    """Whether the frameworks and stores allow it, by what is known before anything is imported."""
    if plan.settings.runtime != "native":
        return False
    for project in found:
        if not isinstance(project.store.storage, FolderStorage):  # a bucket's client holds threads
            return False
        store = project.store
        manifest = store.manifest(project.name, store.resolve(project.name, plan.settings.model))
        if not frameworks.get_framework(manifest.framework).survives_fork:
            return False
    return True


def _load_model(plan: ServeSpec, found: Sequence[Project], project: Project) -> ServedModel:
    with choose_context(found, project)():
        return load_served_model(project.app, plan.settings.model, project.store, plan.settings)


def _find_obstacle(sockets: int) -> str | None:
    """What of the imported app would not work in a forked child."""
    loaded = [name for name in UNFIT if name in sys.modules]
    if loaded:
        return f"imports {loaded[0]}"
    if threading.active_count() > 1 or _has_native_threads():
        return "starts threads on import"
    if _count_sockets() > sockets:
        return "opens connections on import"
    return None


def _has_native_threads() -> bool:
    """Whether libraries run threads that do not end at a fork, as OpenBLAS's do, to begin again in the child.

    A team of GNU OpenMP's that the main thread has started hangs the child's first parallel loop.
    """
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    end = time.monotonic() + MOMENT
    while time.monotonic() < end:
        names = []
        for task in TASKS.iterdir():
            with contextlib.suppress(OSError):  # it has just ended
                names.append((task / "comm").read_text().strip())
        if len(names) - sum(name in HARMLESS for name in names) == 1:
            return False
        time.sleep(0.01)
    return True


def _import_later_modules(plan: ServeSpec) -> None:
    """Import what each worker would import once it serves."""
    for name in LATER:
        if find_spec(name) is not None:
            import_module(name)
    if any(project.settings.monitor.logs != "off" for project in plan.open_projects()) and find_spec("pyarrow"):
        import_module("pyarrow.parquet")


def _count_sockets() -> int:
    found = 0
    for entry in os.scandir(DESCRIPTORS):
        try:
            found += os.readlink(entry.path).startswith("socket:")
        except OSError:  # the folder's own descriptor
            continue
    return found
