"""`--engine flyte-local`: run the compiled workflow in this process with flytekit's local execution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flytekit.configuration import DataConfig
from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.data_persistence import FileAccessProvider

from mlapp import env_vars
from mlapp.errors import MlappError
from mlapp.flyte import inputs, promotion, task_bodies
from mlapp.flyte.app_source import Source
from mlapp.flyte.task_graph import get_task_graph
from mlapp.flyte.workflow import train_workflow
from mlapp.reporting import Reporter
from mlapp.store import ModelVersion, Store
from mlapp.temporary_folders import open_temporary_folder

CACHE = "FLYTE_LOCAL_CACHE_ENABLED"
"""Switches flytekit's local cache, which must be off: it keeps paths of deleted outputs, and ignores the code."""


def train_locally(
    source: Source, parameters: Mapping[str, Any], store: Store, *, progress: Reporter = lambda step: None
) -> ModelVersion:
    """Train, and save the version in the store. Intermediate data is removed afterwards.

    Raises:
        UsageError: a parameter is unknown or of the wrong type. UserCodeError: a function raised.
    """
    values = inputs.encode_inputs(get_task_graph(source).inputs, parameters)
    workflow = train_workflow(source)
    progress("flyte-local")
    with open_temporary_folder("flyte") as folder:
        access = FileAccessProvider(str(folder), f"{folder}/raw", data_config=DataConfig.auto())
        context = FlyteContextManager.current_context()
        with (
            env_vars.override_variables({CACHE: "false"}),
            FlyteContextManager.with_context(context.with_file_access(access)),
        ):
            try:
                outputs = workflow(**values)
            except Exception as error:  # flytekit wraps a stage's error in its own types
                raise _unwrap_local_error(error) from None
            model = Path(outputs.model.download())
        return promotion.save_and_promote(store, task_bodies.open_saved_version(model))


def _unwrap_local_error(error: BaseException) -> BaseException:
    """The original error, without flytekit's wrappers, as a run without Flyte would raise it."""
    pending, seen_ids = [error], set()
    while pending:
        cause = pending.pop(0)
        if isinstance(cause, MlappError):
            return cause
        seen_ids.add(id(cause))
        pending += [
            next_cause
            for next_cause in (cause.__context__, cause.__cause__)
            if next_cause and id(next_cause) not in seen_ids
        ]
    return error
