"""The tasks that schedules run: `<app>.predict` and `<app>.monitor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile

from mlapp.flyte import inputs
from mlapp.flyte.batch_prediction import run_predict_step
from mlapp.flyte.task_bodies import open_saved_version, run_monitor_step
from mlapp.flyte.tasks import StageTask, download_flyte_task_folder, make_task_output_folder
from mlapp.store import ModelVersion, open_store

if TYPE_CHECKING:
    from mlapp.flyte.task_graph import TaskGraph

VERSION_INPUT = "model_version"
"""The input with the version, alias or `latest` of the store to predict with if no model is given."""


def make_scheduled_batch_task(graph: TaskGraph) -> StageTask:
    """The task that predicts on the reader's data and writes a Parquet file."""
    task_inputs = graph.list_task_inputs("batch")

    def run_batch(values: dict[str, Any]) -> Any:
        out = make_task_output_folder("predictions") / "predictions.parquet"
        run_predict_step(
            graph.pipeline,
            inputs.decode_inputs_by_stage(task_inputs, values),
            _load_scheduled_version(graph, values),
            out,
        )
        return FlyteFile(str(out))

    data = {"model": FlyteDirectory | None, VERSION_INPUT: str}
    return graph.make_task("batch", run_batch, task_inputs, data, {"predictions": FlyteFile}, workflow="predict")


def _load_scheduled_version(graph: TaskGraph, values: Mapping[str, Any]) -> ModelVersion:
    """The model to predict with: the task's input, or the version of the store that a schedule names."""
    store = open_store(graph.source.settings.store, graph.source.root)
    if values["model"] is not None:
        version = open_saved_version(download_flyte_task_folder(values["model"]))
        store.require_signed(version)
        return version
    return store.get(graph.name, values[VERSION_INPUT] or "latest")


def make_monitor_task(graph: TaskGraph) -> StageTask:
    """The task that closes the monitoring windows that have ended."""

    def run_monitor(values: dict[str, Any]) -> Any:
        return run_monitor_step(graph.source.project)

    return graph.make_task("monitor", run_monitor, [], {}, {"closed": str}, workflow="monitor")
