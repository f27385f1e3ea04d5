"""The tasks of one app: their inputs and outputs, declared options, and how a container finds them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import flytekit
import msgspec
from flytekit.core.base_task import TaskResolverMixin
from flytekit.core.hash import HashMethod
from flytekit.core.launch_plan import LaunchPlan
from flytekit.types.directory import FlyteDirectory

from mlapp.app import App
from mlapp.errors import ProjectError
from mlapp.flyte import code_archive, code_fingerprint, data_folder, deck, inputs, promotion, task_bodies
from mlapp.flyte.app_source import Source, load_app_source
from mlapp.flyte.fusion import (
    STEP_OUTPUTS,
    declare_fused_task,
    fuse_steps,
    list_fused_inputs,
    list_fused_outputs,
    name_fused_task,
)
from mlapp.flyte.inputs import Input
from mlapp.flyte.scheduled_tasks import make_monitor_task, make_scheduled_batch_task
from mlapp.flyte.task_specs import STEPS, choose_default_resources, list_task_spec_stages, make_task_spec_options
from mlapp.flyte.tasks import StageTask, download_flyte_task_folder, make_task_output_folder
from mlapp.flyte.tune_tasks import make_trial_task, make_tune_data_task
from mlapp.pipeline import Pipeline
from mlapp.pipeline.parameters import REQUIRED, list_parameters
from mlapp.pipeline.stage_options import NO_OPTIONS
from mlapp.pipeline.stage_tasks import Task
from mlapp.provenance import GitState
from mlapp.store import Signer
from mlapp.training.binding import infer_model_framework, list_parameter_stages

CODE_REVISION = "MLAPP_CODE_REVISION"
"""Variable with the registered commit, with the suffix `-dirty` if changed. A container has the code but no git."""
TUNING = "tuning"
"""The input with the search that found the parameters, as JSON; empty without a search."""
Metrics = dict[str, dict[str, float]]
OTHER_TASKS: Mapping[str, Callable[[TaskGraph], StageTask]] = {
    "batch": make_scheduled_batch_task,
    "data": make_tune_data_task,
    "monitor": make_monitor_task,
    "trial": make_trial_task,
}
"""The tasks of the workflows other than `<app>.train`."""


class TaskGraph:
    """The tasks of one app, each created once because Flyte's names are global."""

    def __init__(self, source: Source) -> None:
        source.app.require_stages("data_reader", "model")
        for role in ("data_loader", "data_splitter"):  # their return values are transferred
            if not source.settings.flyte.pickle and (stage := source.app.stage(role)):
                data_folder.check_folder_annotation(stage)
        self.source = source
        self.pipeline: Pipeline = source.app
        self.name = source.app.name
        parameters = list_parameters(list_parameter_stages(self.pipeline, infer_model_framework(self.pipeline)))
        times = {schedule.time for schedule in self.pipeline.schedules.values() if schedule.time}
        self.inputs = inputs.make_inputs(parameters, times)
        self.entities: dict[Any, Any] = {}
        """Workflows and launch plans of these tasks, each created once."""
        # flytekit caches launch plans by name; cached ones would refer to workflows of an earlier graph.
        for name in [name for name in LaunchPlan.CACHE if name.startswith(f"{self.name}.")]:
            del LaunchPlan.CACHE[name]
        self._tasks: dict[str, StageTask] = {}

    def list_task_inputs(self, step: str) -> list[Input]:
        """The parameters of a step's stages."""
        return [input for input in self.inputs if input.parameter.stage in STEPS[step].takes]

    def get_task(self, step: str) -> StageTask:
        """One task by its name.

        Raises:
            ProjectError: the app lacks the task: the container has different code.
        """
        if step not in self._tasks:
            group = next((group for group in self.groups() if name_fused_task(group) == step), None)
            if group is None and step not in OTHER_TASKS:
                raise ProjectError(
                    f"App '{self.name}' has no task '{step}'.", "Register the app again with this version of mlapp."
                )
            self._tasks[step] = self._make_step_task(group) if group else OTHER_TASKS[step](self)
        return self._tasks[step]

    def groups(self) -> list[tuple[str, ...]]:
        """The steps of each task of `<app>.train`."""
        return fuse_steps(self.pipeline, separate=self.source.settings.flyte.tasks == "separate")

    def has_split_training(self) -> bool:
        """Whether a task begins with `train`, so that training can start from split data."""
        return any(steps[0] == "train" for steps in self.groups())

    def _make_step_task(self, steps: tuple[str, ...]) -> StageTask:
        """One task for one or more steps. Between its own steps, folders stay on the task's disk."""
        parameters = list(dict.fromkeys(input for step in steps for input in self.list_task_inputs(step)))
        outputs = list_fused_outputs(steps)
        name = name_fused_task(steps)

        def run_steps(task_values: dict[str, Any]) -> Any:
            values = {
                key: task_values[key] if key == "metrics" else download_flyte_task_folder(task_values[key])
                for key in list_fused_inputs(steps)
            }
            for step in steps:
                self._tasks[name].stage = step
                values[STEP_OUTPUTS[step]] = self._run_step(step, task_values, values)
            results = [values[key] if key == "metrics" else FlyteDirectory(str(values[key])) for key in outputs]
            return results[0] if len(results) == 1 else tuple(results)

        data = {key: Metrics if key == "metrics" else FlyteDirectory for key in list_fused_inputs(steps)}
        if "save" in steps:
            data |= {promotion.INPUT_NAME: str, TUNING: str}
        kinds = {"table": self._hashed_folder_type, "splits": self._hashed_folder_type, "metrics": Metrics}
        return self.make_task(
            name,
            run_steps,
            parameters,
            data,
            {key: kinds.get(key, FlyteDirectory) for key in outputs},
            declared=declare_fused_task(self.pipeline, steps),
            shows_deck="evaluate" in steps,
        )

    def _run_step(self, step: str, task_values: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        """Run one step with the results of the previous steps; returns a folder, or the metrics."""
        stage_values = inputs.decode_inputs_by_stage(self.list_task_inputs(step), task_values)
        if step == "evaluate":
            metrics = task_bodies.run_evaluate_step(self.pipeline, stage_values, values["splits"], values["trained"])
            deck.publish_evaluation_deck(deck.render_metrics_deck(self.name, metrics))
            return metrics
        out = make_task_output_folder(STEP_OUTPUTS[step])
        if step == "read":
            task_bodies.run_read_step(self.pipeline, stage_values, out, pickle=self.allows_pickle)
        elif step == "split":
            task_bodies.run_split_step(self.pipeline, stage_values, values["table"], out, pickle=self.allows_pickle)
        elif step == "train":
            task_bodies.run_train_step(self.pipeline, stage_values, values["splits"], out)
        else:
            version = task_bodies.run_save_step(
                self.pipeline,
                stage_values,
                values["trained"],
                values["metrics"],
                out,
                origin=_read_task_graph_origin(),
                git=_read_task_graph_git(),
                tuning=msgspec.json.decode(task_values[TUNING], type=dict) if task_values[TUNING] else None,
                signer=Signer(self.source.settings.store, self.source.root),
            )
            promotion.save_if_store_is_shared(
                self.source.settings.store, self.source.root, version, task_values[promotion.INPUT_NAME]
            )
        return out

    def make_task(
        self,
        step: str,
        work: Any,
        stage_inputs: list[Input],
        data: Mapping[str, Any],
        outputs: dict[str, Any],
        *,
        workflow: str = "train",
        declared: Task | None = None,
        shows_deck: bool = False,
    ) -> StageTask:
        """A task of one of the app's workflows.

        Args:
            work: the function that does the work, given the task's inputs by name.
            stage_inputs: the inputs that are parameters of stages.
            data: the other inputs, by name, with their types.
            outputs: the names and types of the results.
            declared: the task's options; by default those that its stages declare.
        """
        declared = declared or make_task_spec_options(self.pipeline, step)
        return StageTask(
            self.source,
            step,
            work,
            name=f"{self.name}.{workflow}.{step}",
            inputs={**make_task_graph_defaults(stage_inputs), **{name: (kind, None) for name, kind in data.items()}},
            outputs=outputs,
            resolver=app_tasks,
            declared=dataclasses.replace(
                declared, resources=choose_default_resources(declared.resources, self.source.size)
            ),
            cache_version=self._make_task_cache_version(step) if declared.cache else "",
            shows_deck=shows_deck,
        )

    def _make_task_cache_version(self, step: str) -> str:
        """A hash of the user's functions in a task, of the code that they call, and of the app's declarations."""
        stages = list_task_spec_stages(self.pipeline, step)
        columns = (self.pipeline.target, self.pipeline.features)
        model = next((stage.options for stage in stages if stage.role.name == "model"), NO_OPTIONS)
        options = dataclasses.replace(model, task=None)
        functions = [stage.function for stage in stages]
        return code_fingerprint.compute_code_cache_version(
            functions, self.source.root, (columns, options, self._data_digest)
        )

    @cached_property
    def _data_digest(self) -> str:
        """A hash of the data files that are uploaded with the code; empty in a container, which does not need it."""
        if "FLYTE_INTERNAL_EXECUTION_ID" in os.environ:
            return ""
        return code_archive.digest_archive_data(self.source.root, self.source.settings)

    @property
    def allows_pickle(self) -> bool:
        """Whether values without a safe format may be transferred as pickles (`flyte.pickle`)."""
        return self.source.settings.flyte.pickle

    @property
    def _hashed_folder_type(self) -> Any:
        """A folder type that later tasks' caches identify by content, whichever run wrote it."""
        caches = any(make_task_spec_options(self.pipeline, step).cache for step in STEPS)
        if not caches:
            return FlyteDirectory
        return Annotated[FlyteDirectory, HashMethod(lambda given: data_folder.hash_folder(Path(given.path)))]


class AppTaskResolver(TaskResolverMixin):  # type: ignore[misc]
    """Writes the loader arguments `app app.py task train` to the container's command, and reads them there; also
    `env staging` for settings of an environment.

    mlapp's registration unpacks the code in the working directory. `pyflyte register` unpacks it in a folder on
    PYTHONPATH (`flytekit/bin/entrypoint.py`, `fast_execute_task_cmd`).
    """

    location = "mlapp.flyte.task_graph.app_tasks"

    def name(self) -> str:
        return "mlapp"

    def load_task(self, loader_args: list[str]) -> Any:
        arguments = dict(zip(loader_args[::2], loader_args[1::2], strict=True))
        source = load_app_source(_find_task_app_folder(arguments["app"]), arguments["app"], arguments.get("env"))
        return get_task_graph(source).get_task(arguments["task"])

    def loader_args(self, settings: Any, task: Any) -> list[str]:
        environment = task.source.environment
        return ["app", task.source.place, *(["env", environment] if environment else []), "task", task.step]

    def get_all_tasks(self) -> list[Any]:
        return []


app_tasks = AppTaskResolver()
_graphs: dict[App, TaskGraph] = {}


def get_task_graph(source: Source) -> TaskGraph:
    """The task graph of an app; a new one if its location or its settings have changed.

    Raises:
        DeclarationError: there is no reader or no model. UsageError: Flyte cannot represent a parameter.
    """
    graph = _graphs.get(source.app)
    if graph is None or graph.source != source:
        graph = _graphs[source.app] = TaskGraph(source)
    return graph


def make_task_graph_defaults(stage_inputs: list[Input]) -> dict[str, tuple[Any, Any]]:
    """Inputs in the form of flytekit's interface: name → type and default."""
    return {input.name: (input.kind, None if input.default is REQUIRED else input.default) for input in stage_inputs}


def _find_task_app_folder(location: str) -> Path:
    """The folder of the app: the working directory, or an entry of PYTHONPATH."""
    folders = [Path.cwd(), *map(Path, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))]
    file = location.partition(":")[0]
    return next((folder for folder in folders if (folder / file).is_file()), folders[0])


def _read_task_graph_origin() -> dict[str, str]:
    execution = flytekit.current_context().execution_id
    if execution is None or not execution.project or execution.name == "local":
        return {"engine": "flyte-local"}
    return {"engine": "flyte", "execution": execution.name, "project": execution.project, "domain": execution.domain}


def _read_task_graph_git() -> GitState | None:
    commit, dash, _ = os.environ.get(CODE_REVISION, "").partition("-dirty")
    return GitState(commit, bool(dash)) if commit else None
