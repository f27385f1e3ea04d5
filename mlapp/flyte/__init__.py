"""Flyte: the same pipeline at any scale. `train_workflow(app)` and `predict_workflow(app)` return its workflows.

pyflyte needs only a module that defines them:

    from app import app
    from mlapp.flyte import predict_workflow, train_workflow

    train = train_workflow(app)
    predict = predict_workflow(app)
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from mlapp.errors import ConfigError, MissingExtraError, MlappError

if TYPE_CHECKING:
    from mlapp.flyte.interface import Engine
    from mlapp.flyte.workflow import predict_workflow, train_workflow
    from mlapp.project import Project

__all__ = ["predict_workflow", "train_workflow"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    require_flytekit()
    from mlapp.flyte import workflow

    return getattr(workflow, name)


def open_flyte_engine(project: Project) -> Engine:
    """The engine `flyte` of the entry-point group `mlapp.engines`. Makes no request.

    Raises:
        MissingExtraError: flytekit is not installed. ConfigError: FLYTECTL_CONFIG names no file.
    """
    require_flytekit()
    config_file = os.environ.get("FLYTECTL_CONFIG")
    if config_file and not os.path.exists(config_file):  # flytekit would print a warning when it is imported
        raise ConfigError(f"FLYTECTL_CONFIG names {config_file}, which does not exist.", "Correct it, or unset it.")
    from mlapp.flyte.engine import FlytekitEngine

    _keep_flyte_interrupt_handler()
    atexit.register(_remove_flyte_temporary_folders)
    return FlytekitEngine(project)


def _keep_flyte_interrupt_handler() -> None:
    """Restore Python's Ctrl-C handler: flytekit's, which it installs when it is imported, exits silently."""
    handler = signal.getsignal(signal.SIGINT)
    is_flytekits = getattr(handler, "__module__", "").startswith("flytekit")
    if is_flytekits and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _remove_flyte_temporary_folders() -> None:
    """Remove the folders that flytekit creates in the folder for temporary files when it is imported."""
    from flytekit.configuration import Config
    from flytekit.core.data_persistence import flyte_tmp_dir

    for folder in (Config.local_sandbox_path, flyte_tmp_dir):
        shutil.rmtree(folder, ignore_errors=True)


def require_flytekit() -> None:
    """Raise MissingExtraError if flytekit is not installed, or MlappError if this Python cannot have it."""
    if importlib.util.find_spec("flytekit") is not None:
        return
    if sys.version_info >= (3, 13):
        python_version = "{}.{}".format(*sys.version_info)
        raise MlappError(
            f"flytekit needs a Python before 3.13, and this is {python_version}.",
            "Create the project's environment with Python 3.12, and install mlapp-kit[flyte] in it.",
        )
    raise MissingExtraError("Flyte", "flyte")
