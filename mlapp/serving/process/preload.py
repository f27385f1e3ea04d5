"""Loads models once, in the parent of the workers, which are forked from it and share its memory.

A fork shares memory until one side writes to it, and copies no threads. So libraries that need threads, devices or
connections fail in the child. The parent loads a model only if its framework declares that it survives a fork. If the
app opens sockets or starts threads on import, each worker loads its own model.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from mlapp import frameworks
from mlapp.data.memory import return_free_memory
from mlapp.project import Project
from mlapp.serving.decoding.json_body import encode_json
from mlapp.serving.inference.served_model import ServedModel, load_served_model
from mlapp.serving.process.launch import Preloaded, choose_launch_context
from mlapp.serving.serve_spec import ServeSpec
from mlapp.store.folder_storage import FolderStorage

log = logging.getLogger("mlapp.serving")
UNFIT = ("torch", "tensorflow", "jax", "onnxruntime", "grpc", "obstore", "pyspark", "ray")
"""Modules whose threads or devices do not work in a forked child and cannot be restarted."""
LATER = (
    "uvloop",
    "httptools",
    "uvicorn.lifespan.off",
    "mlapp.serving.fast_path.protocol",
)
HARMLESS = frozenset(("jemalloc_bg_thd",))
"""Names of native threads that restart in a forked child."""
MOMENT = 0.5
"""Maximum seconds until the threads of an OpenMP team end after the thread that started it, if they get a core."""
LONGEST = 20.0
"""Maximum seconds that these threads wait for a core."""
DESCRIPTORS = Path("/proc/self/fd")
TASKS = Path("/proc/self/task")


def preload_models(plan: ServeSpec) -> Preloaded | None:
    """Load the plan's models in this process; None if each worker must load them.

    Raises:
        MlappError: an app cannot be imported, or a model cannot be loaded.
    """
    projects = plan.open_projects()
    if sys.platform != "linux" or not plan.settings.preload or plan.reload or not _can_preload(plan, projects):
        return None
    start, before = Path.cwd(), _count_preload_sockets()
    models: dict[str, ServedModel] = {}
    try:
        for project in projects:
            with choose_launch_context(projects, project)():
                app = project.app
            with ThreadPoolExecutor(1) as thread:  # OpenMP's thread team ends with the thread that used it
                model = models[app.name] = thread.submit(_preload_model, plan, projects, project).result()
            if model.baseline is not None and project.settings.monitor.tests is not None:
                model.baseline.prepare_counting()
    finally:
        if len(projects) > 1:
            os.chdir(start)
    obstacle = _find_preload_obstacle(before)
    if obstacle is not None:
        log.warning("each worker loads its own model, because the app %s; see serve.preload", obstacle)
        return None
    _preload_later_modules(projects)
    gc.collect()
    return_free_memory()
    gc.freeze()  # so that the children's garbage collector does not write to these objects
    return Preloaded(projects, models)


def _can_preload(plan: ServeSpec, projects: Sequence[Project]) -> bool:
    """Whether the frameworks and stores survive a fork, as far as is known before the apps are imported."""
    if plan.settings.runtime != "native":
        return False
    for project in projects:
        if not isinstance(project.store.storage, FolderStorage):  # a bucket's client has threads
            return False
        store = project.store
        manifest = store.manifest(project.name, store.resolve(project.name, plan.settings.model))
        if not frameworks.get_framework(manifest.framework).survives_fork:
            return False
    return True


def _preload_model(plan: ServeSpec, projects: Sequence[Project], project: Project) -> ServedModel:
    with choose_launch_context(projects, project)():
        model = load_served_model(project.app, plan.settings.model, project.store, plan.settings)
        if project.app.stage("feature_transformer") is None and project.app.stage("feature_loader") is None:
            _predict_preloaded_example(model)
        return model


def _predict_preloaded_example(model: ServedModel) -> None:
    """Let the framework predict an example, so that the workers share what its library loads at the first prediction.

    No function of the app is called, because it could open files and connections.
    """
    predictor = model.predictor
    # A library can raise anything. The workers then prepare it themselves, and report errors.
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = model.codec.decode_json(encode_json({"inputs": predictor.schema.features.example_inputs()}))
        predictor.framework.predictor(predictor.estimator, model.codec.combine_parts([part]))


def _find_preload_obstacle(sockets: int) -> str | None:
    """The reason why the imported app does not work in a forked child, or None."""
    unfit = [name for name in UNFIT if name in sys.modules]
    if unfit:
        return f"imports {unfit[0]}"
    if threading.active_count() > 1 or _has_native_preload_threads():
        return "starts threads on import"
    if _count_preload_sockets() > sockets:
        return "opens connections on import"
    return None


def _has_native_preload_threads() -> bool:
    """Whether libraries have threads that survive in the parent at a fork. OpenBLAS restarts its threads in the child.

    If the main thread has started a thread team of GNU OpenMP, the child's first parallel loop blocks forever.
    """
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    latest = time.monotonic() + LONGEST
    end = time.monotonic() + MOMENT
    while time.monotonic() < end:
        states = _list_native_preload_thread_states()
        if not states:
            return False
        if any(state != "S" for state in states):  # beside load, a thread that ends waits for a core first
            end = min(time.monotonic() + MOMENT, latest)
        time.sleep(0.01)
    return True


def _list_native_preload_thread_states() -> list[str]:
    """The states, as in proc(5), of this process's other threads."""
    states = []
    for task in TASKS.iterdir():
        with contextlib.suppress(OSError):  # the thread has just ended
            name, _, rest = (task / "stat").read_text().partition(" (")[2].rpartition(") ")
            if task.name != str(os.getpid()) and name not in HARMLESS:
                states.append(rest[0])
    return states


def _preload_later_modules(projects: Sequence[Project]) -> None:
    """Import modules that each worker needs later."""
    for name in LATER:
        if find_spec(name) is not None:
            import_module(name)
    if any(project.settings.monitor.logs != "off" for project in projects) and find_spec("pyarrow"):
        import_module("pyarrow.parquet")


def _count_preload_sockets() -> int:
    count = 0
    for entry in os.scandir(DESCRIPTORS):
        try:
            count += os.readlink(entry.path).startswith("socket:")
        except OSError:  # the descriptor of the scanned folder, which is closed by now
            continue
    return count
