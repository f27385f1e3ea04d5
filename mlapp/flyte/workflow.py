"""The pipeline as Flyte's workflows: `<app>.train` (read → split → train → evaluate → save) and `<app>.predict`.

They are ordinary workflow objects: a user's own `@workflow` can call them, and pyflyte finds them in a module.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any, get_args

import flytekit
from flytekit.core.hash import HashMethod
from flytekit.core.interface import Interface
from flytekit.core.workflow import ImperativeWorkflow
from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile

from mlapp import frameworks
from mlapp.app import App
from mlapp.environment import GitState
from mlapp.errors import ProjectError
from mlapp.flyte import deck, inputs, promotion, source, stages, types, versions
from mlapp.flyte.inputs import Input
from mlapp.flyte.source import Source
from mlapp.flyte.tasks import StageTask, first, folder
from mlapp.frameworks import Framework
from mlapp.pipeline import Pipeline
from mlapp.pipeline.parameters import REQUIRED, declared
from mlapp.pipeline.resources import Task
from mlapp.training import steps
from mlapp.training.run import parameter_stages

CODE_REVISION = "MLAPP_CODE_REVISION"
"""The commit that was registered, with `-dirty` after it: a container has the code, and no git."""
ROLES = {
    "read": ("data_reader", "data_loader"),
    "split": ("data_splitter",),
    "train": ("trainer", "model", "data_parser", "feature_transformer"),
    "evaluate": ("evaluator", "data_parser", "feature_transformer"),
    "batch": ("data_reader", "data_loader"),
}
"""The stages that run in a task. The first with declared resources and the like gives the task's."""
Metrics = dict[str, dict[str, float]]


class AppWorkflow(ImperativeWorkflow):  # type: ignore[misc]
    """An imperative workflow whose inputs have defaults."""

    def __init__(self, name: str, inputs: dict[str, tuple[Any, Any]]) -> None:
        super().__init__(name)
        for input, (kind, _) in inputs.items():
            self.add_workflow_input(input, kind)
        self._defaults = inputs

    @property
    def python_interface(self) -> Interface:
        outputs = super().python_interface.outputs
        return Interface(inputs=self._defaults, outputs=outputs)

    def __call__(self, *args: Any, **given: Any) -> Any:
        # flytekit fills in a default for what is absent, except None.
        positional = list(self._defaults)[: len(args)]
        absent = {
            name: None
            for name, (kind, default) in self._defaults.items()
            if default is None and type(None) in get_args(kind) and name not in (*positional, *given)
        }
        return super().__call__(*args, **absent, **given)


def train_workflow(app: App | Source) -> AppWorkflow:
    """`<app>.train`: its inputs are the parameters, and `promote_if`; its outputs the metrics and the model's folder.

    Args:
        app: the App, for a workflow of your own; it must be in a module, as in app.py.

    Raises:
        DeclarationError: no reader or no model. UsageError: a parameter that Flyte cannot carry.
    """
    return _plan(app if isinstance(app, Source) else source.of_app(app)).train()


def predict_workflow(app: App | Source) -> AppWorkflow:
    """`<app>.predict`: predictions for what the reader reads, by the model in a folder that `<app>.train` wrote."""
    return _plan(app if isinstance(app, Source) else source.of_app(app)).predict()


def task(source: Source, step: str) -> StageTask:
    """One task by its name, as a container runs it.

    Raises:
        ProjectError: the app has no such task: the container's code is another.
    """
    plan = _plan(source)
    if step not in (*ROLES, "save"):
        raise ProjectError(f"App '{source.app.name}' has no task '{step}'.", "Register it again with this mlapp.")
    return plan.task(step)


def train_inputs(source: Source) -> list[Input]:
    """The inputs of `<app>.train` that are the pipeline's parameters."""
    return _plan(source).inputs


def predict_inputs(source: Source) -> list[Input]:
    """The inputs of `<app>.predict` that are the reader's and loader's parameters."""
    return _plan(source).of_roles(*ROLES["batch"])


def framework_of(pipeline: Pipeline) -> Framework:
    """The framework of the app's model: by the builder's annotation, else by building it with its defaults.

    Raises:
        UserCodeError: the model function raised.
    """
    stage = pipeline.stages["model"]
    kind = stage.function if isinstance(stage.function, type) else stage.signature.return_annotation
    if isinstance(kind, type) and frameworks.of(kind).name != "python":
        return frameworks.of(kind)
    own = declared([stage])
    if any(parameter.required for parameter in own):
        return frameworks.of(object)
    return frameworks.of(type(steps.build(pipeline, {parameter.name: parameter.default for parameter in own})))


class _Plan:
    """The tasks and workflows of one app, each made once: Flyte's names are global."""

    def __init__(self, source: Source) -> None:
        source.app.require("data_reader", "model")
        self.source = source
        self.pipeline: Pipeline = source.app
        self.name = source.app.name
        parameters = declared(parameter_stages(self.pipeline, framework_of(self.pipeline)))
        self.inputs = inputs.inputs(parameters)
        self._tasks: dict[str, StageTask] = {}
        self._workflows: dict[str, AppWorkflow] = {}

    def of_roles(self, *roles: str) -> list[Input]:
        return [input for input in self.inputs if input.parameter.stage in roles]

    def task(self, step: str) -> StageTask:
        if step not in self._tasks:
            self._tasks[step] = getattr(self, f"_{step}")()
        return self._tasks[step]

    def train(self) -> AppWorkflow:
        if "train" not in self._workflows:
            self._workflows["train"] = self._make_train()
        return self._workflows["train"]

    def predict(self) -> AppWorkflow:
        if "predict" not in self._workflows:
            self._workflows["predict"] = self._make_predict()
        return self._workflows["predict"]

    def _make_train(self) -> AppWorkflow:
        workflow = AppWorkflow(f"{self.name}.train", {**_with_defaults(self.inputs), promotion.INPUT: (str, "")})

        def add(step: str, **given: Any) -> Any:
            entity = self.task(step)
            own = {name: workflow.inputs[name] for name in entity.python_interface.inputs if name not in given}
            node = workflow.add_entity(entity, **own, **given)
            node.with_overrides(node_name=step)
            return node.outputs

        read = add("read")
        split = add("split", table=read["table"])
        train = add("train", splits=split["splits"])
        evaluate = add("evaluate", splits=split["splits"], trained=train["trained"])
        save = add("save", trained=train["trained"], metrics=evaluate["metrics"])
        workflow.add_workflow_output("metrics", evaluate["metrics"], Metrics)
        workflow.add_workflow_output("model", save["model"], FlyteDirectory)
        return workflow

    def _make_predict(self) -> AppWorkflow:
        own = _with_defaults(self.of_roles(*ROLES["batch"]))
        workflow = AppWorkflow(f"{self.name}.predict", {**own, "model": (FlyteDirectory, None)})
        node = workflow.add_entity(self.task("batch"), **workflow.inputs)
        node.with_overrides(node_name="batch")
        workflow.add_workflow_output("predictions", node.outputs["predictions"], FlyteFile)
        return workflow

    def _read(self) -> StageTask:
        own = self.of_roles(*ROLES["read"])

        def work(given: dict[str, Any]) -> Any:
            out = folder("table")
            stages.read(self.pipeline, inputs.by_stage(own, given), out, pickle=self._pickle)
            return FlyteDirectory(str(out))

        return self._make("read", work, own, {}, {"table": self._hashed})

    def _split(self) -> StageTask:
        own = self.of_roles(*ROLES["split"])

        def work(given: dict[str, Any]) -> Any:
            out = folder("splits")
            bound = inputs.by_stage(own, given)
            stages.split(self.pipeline, bound, _path(given["table"]), out, pickle=self._pickle)
            return FlyteDirectory(str(out))

        return self._make("split", work, own, {"table": FlyteDirectory}, {"splits": self._hashed}, like="read")

    def _train(self) -> StageTask:
        own = self.of_roles(*ROLES["train"])

        def work(given: dict[str, Any]) -> Any:
            out = folder("trained")
            stages.train(self.pipeline, inputs.by_stage(own, given), _path(given["splits"]), out)
            return FlyteDirectory(str(out))

        return self._make("train", work, own, {"splits": FlyteDirectory}, {"trained": FlyteDirectory})

    def _evaluate(self) -> StageTask:
        own = self.of_roles(*ROLES["evaluate"])

        def work(given: dict[str, Any]) -> Any:
            bound = inputs.by_stage(own, given)
            metrics = stages.evaluate(self.pipeline, bound, _path(given["splits"]), _path(given["trained"]))
            deck.publish("Evaluation", deck.report(self.name, metrics))
            return metrics

        data = {"splits": FlyteDirectory, "trained": FlyteDirectory}
        return self._make("evaluate", work, own, data, {"metrics": Metrics}, like="train", shows_deck=True)

    def _save(self) -> StageTask:
        own = self.inputs

        def work(given: dict[str, Any]) -> Any:
            out = folder("model")
            bound = inputs.by_stage(own, given)
            version = stages.save(
                self.pipeline,
                bound,
                _path(given["trained"]),
                given["metrics"],
                out,
                origin=_origin(),
                git=_git(),
            )
            promotion.keep_if_shared(self.source.settings.store, self.source.root, version, given[promotion.INPUT])
            return FlyteDirectory(str(out))

        data = {"trained": FlyteDirectory, "metrics": Metrics, promotion.INPUT: str}
        return self._make("save", work, own, data, {"model": FlyteDirectory}, like="train")

    def _batch(self) -> StageTask:
        own = self.of_roles(*ROLES["batch"])

        def work(given: dict[str, Any]) -> Any:
            out = folder("predictions") / "predictions.parquet"
            stages.predict(self.pipeline, inputs.by_stage(own, given), _path(given["model"]), out)
            return FlyteFile(str(out))

        data = {"model": FlyteDirectory}
        return self._make("batch", work, own, data, {"predictions": FlyteFile}, workflow="predict")

    def _make(
        self,
        step: str,
        work: Any,
        own: list[Input],
        data: dict[str, Any],
        outputs: dict[str, Any],
        *,
        workflow: str = "train",
        like: str | None = None,
        shows_deck: bool = False,
    ) -> StageTask:
        return StageTask(
            self.source,
            step,
            work,
            name=f"{self.name}.{workflow}.{step}",
            inputs={**_with_defaults(own), **{name: (kind, None) for name, kind in data.items()}},
            outputs=outputs,
            declared=self._declared(step, like),
            cache_version=self._cache_version(step),
            shows_deck=shows_deck,
        )

    def _declared(self, step: str, like: str | None) -> Task:
        """What the stages of a task declare. One that declares nothing gets the resources of the task before it,
        as it holds the same data, without its GPU.
        """
        options = [stage.options.get("task") for role in ROLES.get(step, ()) if (stage := self.pipeline.stage(role))]
        own = first(options)
        if own.resources is not None or like is None:
            return own
        resources = self._declared(like, None).resources
        return (
            own if resources is None else dataclasses.replace(own, resources=dataclasses.replace(resources, gpu=None))
        )

    def _cache_version(self, step: str) -> str:
        functions = [stage.function for role in ROLES.get(step, ()) if (stage := self.pipeline.stage(role))]
        return versions.cache_version(functions, self.source.root)

    @property
    def _pickle(self) -> bool:
        return self.source.settings.flyte.pickle

    @property
    def _hashed(self) -> Any:
        """A folder that a later task's cache knows by its content, whatever run wrote it."""
        caches = any(task is not None and task.cache for task in self._all_declared())
        return (
            Annotated[FlyteDirectory, HashMethod(lambda given: types.digest(Path(given.path)))]
            if caches
            else (FlyteDirectory)
        )

    def _all_declared(self) -> list[Task | None]:
        return [stage.options.get("task") for stage in self.pipeline.stages.values()]


_plans: dict[tuple[App, str], _Plan] = {}


def _plan(source: Source) -> _Plan:
    key = (source.app, source.place)
    if key not in _plans:
        _plans[key] = _Plan(source)
    return _plans[key]


def _with_defaults(own: list[Input]) -> dict[str, tuple[Any, Any]]:
    return {input.name: (input.kind, None if input.default is REQUIRED else input.default) for input in own}


def _path(given: Any) -> Path:
    return Path(given.download())


def _origin() -> dict[str, str]:
    execution = flytekit.current_context().execution_id
    if execution is None or not execution.project or execution.name == "local":
        return {"engine": "flyte-local"}
    return {"engine": "flyte", "execution": execution.name, "project": execution.project, "domain": execution.domain}


def _git() -> GitState | None:
    commit, dash, _ = os.environ.get(CODE_REVISION, "").partition("-dirty")
    return GitState(commit, bool(dash)) if commit else None
