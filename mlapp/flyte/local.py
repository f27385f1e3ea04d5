"""`--engine flyte-local`: the compiled workflow in this process, by flytekit's local execution."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flytekit.configuration import DataConfig
from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.data_persistence import FileAccessProvider

from mlapp import environ
from mlapp.errors import MlappError
from mlapp.flyte import inputs, promotion, stages
from mlapp.flyte.plan import plan_of
from mlapp.flyte.source import Source
from mlapp.flyte.workflow import train_workflow
from mlapp.store import ModelVersion, Store

CACHE = "FLYTE_LOCAL_CACHE_ENABLED"
"""flytekit's local cache keeps the places of outputs, which are removed here, and its key ignores the code."""


def train(
    source: Source, parameters: Mapping[str, Any], store: Store, *, progress: Callable[[str], None] = lambda step: None
) -> ModelVersion:
    """Train, and put the version into the store. What passes between the tasks is removed afterwards.

    Raises:
        UsageError: a parameter that no stage takes, or of the wrong type. UserCodeError: a function raised.
    """
    values = inputs.encode(plan_of(source).inputs, parameters)
    workflow = train_workflow(source)
    progress("flyte-local")
    folder = tempfile.mkdtemp(prefix="mlapp-")
    try:
        access = FileAccessProvider(folder, f"{folder}/raw", data_config=DataConfig.auto())
        context = FlyteContextManager.current_context()
        with environ.overridden({CACHE: "false"}), FlyteContextManager.with_context(context.with_file_access(access)):
            try:
                outputs = workflow(**values)
            except Exception as error:
                raise _original(error) from None
            model = Path(outputs.model.download())
        return promotion.keep(store, stages.open_version(model))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _original(error: BaseException) -> BaseException:
    """The error as a run in this process gives it: ours, of those that flytekit put around it."""
    waiting, seen = [error], set()
    while waiting:
        found = waiting.pop(0)
        if isinstance(found, MlappError):
            return found
        seen.add(id(found))
        waiting += [inner for inner in (found.__context__, found.__cause__) if inner and id(inner) not in seen]
    return error
