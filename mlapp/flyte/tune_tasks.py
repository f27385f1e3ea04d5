"""The tasks of `<app>.tune`: the data that all trials share, and a trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flytekit.types.directory import FlyteDirectory

from mlapp.flyte import inputs, task_bodies
from mlapp.flyte.tasks import StageTask, download_flyte_task_folder, make_task_output_folder
from mlapp.flyte.trial import run_trial_step

if TYPE_CHECKING:
    from mlapp.flyte.task_graph import TaskGraph


def make_tune_data_task(graph: TaskGraph) -> StageTask:
    """The task that reads and splits the data once for all trials."""
    task_inputs = graph.list_task_inputs("data")

    def run_data(values: dict[str, Any]) -> Any:
        table, out = make_task_output_folder("table"), make_task_output_folder("splits")
        stage_values = inputs.decode_inputs_by_stage(task_inputs, values)
        task_bodies.run_read_step(graph.pipeline, stage_values, table, pickle=graph.allows_pickle)
        task_bodies.run_split_step(graph.pipeline, stage_values, table, out, pickle=graph.allows_pickle)
        return FlyteDirectory(str(out))

    return graph.make_task("data", run_data, task_inputs, {}, {"splits": FlyteDirectory}, workflow="tune")


def make_trial_task(graph: TaskGraph) -> StageTask:
    """The task that scores one combination of parameters."""
    task_inputs = graph.list_task_inputs("trial")

    def run_trial(values: dict[str, Any]) -> Any:
        stage_values = inputs.decode_inputs_by_stage(task_inputs, values)
        return run_trial_step(
            graph.pipeline, stage_values, download_flyte_task_folder(values["splits"]), values["trials"]
        )

    data = {"splits": FlyteDirectory, "trials": str}
    return graph.make_task("trial", run_trial, task_inputs, data, {"results": str}, workflow="tune")
