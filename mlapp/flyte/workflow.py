"""The pipeline as Flyte's workflows: `<app>.train` (read + split → train + evaluate + save), `.predict`, `.tune`.

They are ordinary workflow objects: users' own `@workflow` functions can call them, and pyflyte finds them in a module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from flytekit.core.array_node_map_task import ArrayNodeMapTask
from flytekit.core.interface import Interface
from flytekit.core.workflow import ImperativeWorkflow
from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile

from mlapp.app import App
from mlapp.flyte import app_source, promotion
from mlapp.flyte.app_source import Source
from mlapp.flyte.fusion import list_fused_inputs, list_fused_outputs, name_fused_task
from mlapp.flyte.scheduled_tasks import VERSION_INPUT
from mlapp.flyte.task_graph import TUNING, Metrics, TaskGraph, get_task_graph, make_task_graph_defaults
from mlapp.flyte.tasks import StageTask

SPLITS = "splits"
"""The input with the split data of an earlier run."""
MIN_SUCCESS_RATIO = 0.01
"""Minimum share of successful trials. With up to a hundred trials, a run fails only if all of them fail."""


class AppWorkflow(ImperativeWorkflow):  # type: ignore[misc]
    """An imperative workflow with default inputs."""

    def __init__(self, name: str, inputs: dict[str, tuple[Any, Any]]) -> None:
        super().__init__(name)
        for input, (kind, _) in inputs.items():
            self.add_workflow_input(input, kind)
        self._defaults = inputs

    @property
    def python_interface(self) -> Interface:
        outputs = super().python_interface.outputs
        return Interface(inputs=self._defaults, outputs=outputs)

    def __call__(self, *args: Any, **arguments: Any) -> Any:
        # flytekit fills in defaults of missing inputs, except None.
        positional = list(self._defaults)[: len(args)]
        missing = {
            name: None
            for name, (kind, default) in self._defaults.items()
            if default is None and type(None) in get_args(kind) and name not in (*positional, *arguments)
        }
        return super().__call__(*args, **missing, **arguments)

    def add_task(self, entity: Any, node: str, **arguments: Any) -> Any:
        """Add a task as a node; inputs default to the workflow's inputs of the same name. Returns its outputs."""
        workflow_values = {name: self.inputs[name] for name in entity.python_interface.inputs if name not in arguments}
        node_entity = self.add_entity(entity, **workflow_values, **arguments)
        node_entity.with_overrides(node_name=node)
        return node_entity.outputs


class MappedTask(ArrayNodeMapTask):  # type: ignore[misc]
    """A task mapped over the trials: each execution gets one value of its input `trials`; the other inputs are shared.

    flytekit names a mapped task after its module variable. This class keeps the name of its task.
    """

    def __init__(self, task: StageTask) -> None:
        shared_inputs = set(task.python_interface.inputs) - {"trials"}
        self._own_name = str(task.name)
        super().__init__(task, bound_inputs=shared_inputs, min_success_ratio=MIN_SUCCESS_RATIO)

    @property
    def name(self) -> str:
        return self._own_name


def train_workflow(app: App | Source) -> AppWorkflow:
    """`<app>.train`: its inputs are the parameters, `promote_if` and `tuning`; its outputs are the metrics and the
    model's folder.

    Args:
        app: the App, for your own workflow; it must be defined in a module, such as app.py.

    Raises:
        DeclarationError: there is no reader or no model. UsageError: Flyte cannot represent a parameter.
    """
    return _get_or_make_workflow(app, _make_train_workflow)


def predict_workflow(app: App | Source) -> AppWorkflow:
    """`<app>.predict`: predictions for the reader's data, with the model in a folder from `<app>.train`, or with
    `model_version` of a store that the cluster can reach.
    """
    return _get_or_make_workflow(app, _make_predict_workflow)


def monitor_workflow(app: App | Source) -> AppWorkflow:
    """`<app>.monitor`: closes the windows of the deployed model that have ended, as `mlapp monitor run` does."""
    return _get_or_make_workflow(app, _make_monitor_workflow)


def tune_workflow(app: App | Source) -> AppWorkflow:
    """`<app>.tune`: the same data for many trials at once, as a map task.

    Its inputs are the parameters and `trials` (each a `trial.Trial` as JSON); its outputs are a `TrialResult` as
    JSON per trial, None for a killed one, and the data.
    """
    return _get_or_make_workflow(app, _make_tune_workflow)


def split_workflow(app: App | Source, name: Literal["train", "tune"]) -> AppWorkflow | None:
    """Workflows after a search's first run: `<app>.tune_split` for more trials, `<app>.train_split` for the training.

    Both take `splits`, the data of that run, and start no pod to read it. None if the app's split and training share a
    task.
    """
    if name == "tune":
        return _get_or_make_workflow(app, _make_tune_split_workflow)
    graph = get_task_graph(app if isinstance(app, Source) else app_source.make_app_source(app))
    return _get_or_make_workflow(app, _make_train_split_workflow) if graph.has_split_training() else None


def _get_or_make_workflow(app: App | Source, make_workflow: Callable[[TaskGraph], AppWorkflow]) -> AppWorkflow:
    """Create each workflow of an app only once, because Flyte's names are global."""
    graph = get_task_graph(app if isinstance(app, Source) else app_source.make_app_source(app))
    if make_workflow not in graph.entities:
        graph.entities[make_workflow] = make_workflow(graph)
    workflow: AppWorkflow = graph.entities[make_workflow]
    return workflow


def _make_train_workflow(graph: TaskGraph) -> AppWorkflow:
    workflow = AppWorkflow(f"{graph.name}.train", _list_workflow_inputs(graph))
    _add_training_to_workflow(workflow, graph, graph.groups(), {})
    return workflow


def _make_train_split_workflow(graph: TaskGraph) -> AppWorkflow:
    workflow = AppWorkflow(
        f"{graph.name}.train_split", {**_list_workflow_inputs(graph), SPLITS: (FlyteDirectory, None)}
    )
    groups = graph.groups()
    start = next(index for index, steps in enumerate(groups) if steps[0] == "train")
    _add_training_to_workflow(workflow, graph, groups[start:], {SPLITS: workflow.inputs[SPLITS]})
    return workflow


def _list_workflow_inputs(graph: TaskGraph) -> dict[str, tuple[Any, Any]]:
    return {**make_task_graph_defaults(graph.inputs), promotion.INPUT_NAME: (str, ""), TUNING: (str, "")}


def _add_training_to_workflow(
    workflow: AppWorkflow, graph: TaskGraph, groups: Sequence[Sequence[str]], values: dict[str, Any]
) -> None:
    """Add the training tasks and the workflow's outputs. `values` are the outputs of previous steps."""
    for steps in groups:
        name = name_fused_task(steps)
        task_values = {key: values[key] for key in list_fused_inputs(steps)}
        outputs = workflow.add_task(graph.get_task(name), name, **task_values)
        values |= {key: outputs[key] for key in list_fused_outputs(steps)}
    workflow.add_workflow_output("metrics", values["metrics"], Metrics)
    workflow.add_workflow_output("model", values["model"], FlyteDirectory)


def _make_predict_workflow(graph: TaskGraph) -> AppWorkflow:
    inputs = {
        **make_task_graph_defaults(graph.list_task_inputs("batch")),
        "model": (FlyteDirectory | None, None),
        VERSION_INPUT: (str, ""),
    }
    workflow = AppWorkflow(f"{graph.name}.predict", inputs)
    batch = workflow.add_task(graph.get_task("batch"), "batch")
    workflow.add_workflow_output("predictions", batch["predictions"], FlyteFile)
    return workflow


def _make_monitor_workflow(graph: TaskGraph) -> AppWorkflow:
    workflow = AppWorkflow(f"{graph.name}.monitor", {})
    outputs = workflow.add_task(graph.get_task("monitor"), "monitor")
    workflow.add_workflow_output("closed", outputs["closed"], str)
    return workflow


def _make_tune_workflow(graph: TaskGraph) -> AppWorkflow:
    inputs = {**make_task_graph_defaults(graph.inputs), "trials": (list[str], None)}
    workflow = AppWorkflow(f"{graph.name}.tune", inputs)
    data = workflow.add_task(graph.get_task("data"), "data")
    _add_trials_to_workflow(workflow, graph, data["splits"])
    workflow.add_workflow_output("splits", data["splits"], FlyteDirectory)
    return workflow


def _make_tune_split_workflow(graph: TaskGraph) -> AppWorkflow:
    inputs = {**make_task_graph_defaults(graph.inputs), "trials": (list[str], None), SPLITS: (FlyteDirectory, None)}
    workflow = AppWorkflow(f"{graph.name}.tune_split", inputs)
    _add_trials_to_workflow(workflow, graph, workflow.inputs[SPLITS])
    return workflow


def _add_trials_to_workflow(workflow: AppWorkflow, graph: TaskGraph, splits: Any) -> None:
    trial = workflow.add_task(MappedTask(graph.get_task("trial")), "trial", splits=splits)
    workflow.add_workflow_output("results", trial["results"], list[str | None])
