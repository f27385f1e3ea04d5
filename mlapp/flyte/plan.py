"""The tasks of one app: what each takes and gives, what its stages declare, and how a container finds it again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import flytekit
import msgspec
from flytekit.core.base_task import TaskResolverMixin
from flytekit.core.hash import HashMethod
from flytekit.core.launch_plan import LaunchPlan
from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile

from mlapp import frameworks
from mlapp.app import App
from mlapp.environment import GitState
from mlapp.errors import ProjectError
from mlapp.flyte import deck, inputs, promotion, stages, types, versions
from mlapp.flyte import source as sources
from mlapp.flyte.inputs import Input
from mlapp.flyte.source import Source
from mlapp.flyte.steps import STEPS, running, task_of
from mlapp.flyte.tasks import StageTask, folder
from mlapp.frameworks import Framework
from mlapp.pipeline import Pipeline
from mlapp.pipeline.parameters import REQUIRED, declared
from mlapp.store import ModelVersion, open_store
from mlapp.training import steps
from mlapp.training.binding import parameter_stages

CODE_REVISION = "MLAPP_CODE_REVISION"
"""The commit that was registered, with `-dirty` after it: a container has the code, and no git."""
VERSION = "model_version"
"""The input with the version, alias or `latest` of the store that predicts, where no model is given."""
TUNING = "tuning"
"""The input with the search that found the parameters, as JSON; empty when there was none."""
Metrics = dict[str, dict[str, float]]


class Plan:
    """The tasks of one app, each made once: Flyte's names are global."""

    def __init__(self, source: Source) -> None:
        source.app.require("data_reader", "model")
        for role in ("data_loader", "data_splitter"):  # what they return travels
            if not source.settings.flyte.pickle and (stage := source.app.stage(role)):
                types.check_annotation(stage)
        self.source = source
        self.pipeline: Pipeline = source.app
        self.name = source.app.name
        parameters = declared(parameter_stages(self.pipeline, _framework(self.pipeline)))
        times = {schedule.time for schedule in self.pipeline.schedules.values() if schedule.time}
        self.inputs = inputs.inputs(parameters, times)
        self.entities: dict[Any, Any] = {}
        """Workflows and launch plans of these tasks, each made once."""
        # flytekit keeps launch plans by name; those of an earlier plan hold its workflows.
        for name in [name for name in LaunchPlan.CACHE if name.startswith(f"{self.name}.")]:
            del LaunchPlan.CACHE[name]
        self._tasks: dict[str, StageTask] = {}

    def inputs_of(self, step: str) -> list[Input]:
        """The parameters of the stages that run in a task."""
        return [input for input in self.inputs if input.parameter.stage in STEPS[step].takes]

    def task(self, step: str) -> StageTask:
        """One task by its name.

        Raises:
            ProjectError: the app has no such task: the container's code is another.
        """
        if step not in STEPS:
            raise ProjectError(f"App '{self.name}' has no task '{step}'.", "Register it again with this mlapp.")
        if step not in self._tasks:
            self._tasks[step] = getattr(self, f"_{step}")()
        return self._tasks[step]

    def _read(self) -> StageTask:
        own = self.inputs_of("read")

        def work(given: dict[str, Any]) -> Any:
            out = folder("table")
            stages.read(self.pipeline, inputs.by_stage(own, given), out, pickle=self._pickle)
            return FlyteDirectory(str(out))

        return self._make("read", work, own, {}, {"table": self._hashed})

    def _split(self) -> StageTask:
        own = self.inputs_of("split")

        def work(given: dict[str, Any]) -> Any:
            out = folder("splits")
            bound = inputs.by_stage(own, given)
            stages.split(self.pipeline, bound, _path(given["table"]), out, pickle=self._pickle)
            return FlyteDirectory(str(out))

        return self._make("split", work, own, {"table": FlyteDirectory}, {"splits": self._hashed})

    def _train(self) -> StageTask:
        own = self.inputs_of("train")

        def work(given: dict[str, Any]) -> Any:
            out = folder("trained")
            stages.train(self.pipeline, inputs.by_stage(own, given), _path(given["splits"]), out)
            return FlyteDirectory(str(out))

        return self._make("train", work, own, {"splits": FlyteDirectory}, {"trained": FlyteDirectory})

    def _evaluate(self) -> StageTask:
        own = self.inputs_of("evaluate")

        def work(given: dict[str, Any]) -> Any:
            bound = inputs.by_stage(own, given)
            metrics = stages.evaluate(self.pipeline, bound, _path(given["splits"]), _path(given["trained"]))
            deck.publish("Evaluation", deck.report(self.name, metrics))
            return metrics

        data = {"splits": FlyteDirectory, "trained": FlyteDirectory}
        return self._make("evaluate", work, own, data, {"metrics": Metrics}, shows_deck=True)

    def _save(self) -> StageTask:
        own = self.inputs

        def work(given: dict[str, Any]) -> Any:
            out = folder("model")
            version = stages.save(
                self.pipeline,
                inputs.by_stage(own, given),
                _path(given["trained"]),
                given["metrics"],
                out,
                origin=_origin(),
                git=_git(),
                tuning=msgspec.json.decode(given[TUNING], type=dict) if given[TUNING] else None,
            )
            promotion.keep_if_shared(self.source.settings.store, self.source.root, version, given[promotion.INPUT])
            return FlyteDirectory(str(out))

        data = {"trained": FlyteDirectory, "metrics": Metrics, promotion.INPUT: str, TUNING: str}
        return self._make("save", work, own, data, {"model": FlyteDirectory})

    def _batch(self) -> StageTask:
        own = self.inputs_of("batch")

        def work(given: dict[str, Any]) -> Any:
            out = folder("predictions") / "predictions.parquet"
            stages.predict(self.pipeline, inputs.by_stage(own, given), self._version(given), out)
            return FlyteFile(str(out))

        data = {"model": FlyteDirectory | None, VERSION: str}
        return self._make("batch", work, own, data, {"predictions": FlyteFile}, workflow="predict")

    def _version(self, given: Mapping[str, Any]) -> ModelVersion:
        """The model that predicts: the one that is given, or a version of the store, as a schedule names it."""
        if given["model"] is not None:
            return stages.open_version(_path(given["model"]))
        store = open_store(self.source.settings.store, self.source.root)
        return store.get(self.name, given[VERSION] or "latest")

    def _data(self) -> StageTask:
        own = self.inputs_of("data")

        def work(given: dict[str, Any]) -> Any:
            if given["splits"] is not None:
                return given["splits"]
            table, out = folder("table"), folder("splits")
            bound = inputs.by_stage(own, given)
            stages.read(self.pipeline, bound, table, pickle=self._pickle)
            stages.split(self.pipeline, bound, table, out, pickle=self._pickle)
            return FlyteDirectory(str(out))

        data = {"splits": FlyteDirectory | None}
        return self._make("data", work, own, data, {"splits": FlyteDirectory}, workflow="tune")

    def _trial(self) -> StageTask:
        own = self.inputs_of("trial")

        def work(given: dict[str, Any]) -> Any:
            bound = inputs.by_stage(own, given)
            return stages.trial(self.pipeline, bound, _path(given["splits"]), given["trials"])

        data = {"splits": FlyteDirectory, "trials": str}
        return self._make("trial", work, own, data, {"results": str}, workflow="tune")

    def _make(
        self,
        step: str,
        work: Any,
        own: list[Input],
        data: Mapping[str, Any],
        outputs: dict[str, Any],
        *,
        workflow: str = "train",
        shows_deck: bool = False,
    ) -> StageTask:
        return StageTask(
            self.source,
            step,
            work,
            name=f"{self.name}.{workflow}.{step}",
            inputs={**with_defaults(own), **{name: (kind, None) for name, kind in data.items()}},
            outputs=outputs,
            resolver=app_tasks,
            declared=task_of(self.pipeline, step),
            cache_version=self._cache_version(step),
            shows_deck=shows_deck,
        )

    def _cache_version(self, step: str) -> str:
        """Of the user's functions that run in a task, of what they call, and of what the app declares beside them."""
        own = running(self.pipeline, step)
        columns = (self.pipeline.target, self.pipeline.features)
        model = next((stage.options for stage in own if stage.role.name == "model"), {})
        options = {name: value for name, value in model.items() if name != "task"}
        return versions.cache_version([stage.function for stage in own], self.source.root, (columns, options))

    @property
    def _pickle(self) -> bool:
        return self.source.settings.flyte.pickle

    @property
    def _hashed(self) -> Any:
        """A folder that a later task's cache knows by its content, whatever run wrote it."""
        caches = any(task_of(self.pipeline, step).cache for step in STEPS)
        return (
            Annotated[FlyteDirectory, HashMethod(lambda given: types.digest(Path(given.path)))]
            if caches
            else (FlyteDirectory)
        )


class AppTaskResolver(TaskResolverMixin):  # type: ignore[misc]
    """Writes `app app.py task train` behind the container's `--`, and reads it there; `env staging` too where the
    settings are those of an environment.

    The code is in the working directory: fast registration unpacks it there, and an image of ours has it there.
    """

    location = "mlapp.flyte.plan.app_tasks"

    def name(self) -> str:
        return "mlapp"

    def load_task(self, loader_args: list[str]) -> Any:
        given = dict(zip(loader_args[::2], loader_args[1::2], strict=True))
        return plan_of(sources.load(Path.cwd(), given["app"], given.get("env"))).task(given["task"])

    def loader_args(self, settings: Any, task: Any) -> list[str]:
        environment = task.source.environment
        return ["app", task.source.place, *(["env", environment] if environment else []), "task", task.step]

    def get_all_tasks(self) -> list[Any]:
        return []


app_tasks = AppTaskResolver()
_plans: dict[App, Plan] = {}


def plan_of(source: Source) -> Plan:
    """The plan of an app; a new one when its place or its settings are others than before.

    Raises:
        DeclarationError: no reader or no model. UsageError: a parameter that Flyte cannot carry.
    """
    kept = _plans.get(source.app)
    if kept is None or kept.source != source:
        kept = _plans[source.app] = Plan(source)
    return kept


def with_defaults(own: list[Input]) -> dict[str, tuple[Any, Any]]:
    """Inputs as flytekit's interface has them: name → type and default."""
    return {input.name: (input.kind, None if input.default is REQUIRED else input.default) for input in own}


def _framework(pipeline: Pipeline) -> Framework:
    """The framework of the app's model: by the builder's annotation, else by building it with its defaults."""
    stage = pipeline.stages["model"]
    kind = stage.function if isinstance(stage.function, type) else stage.signature.return_annotation
    if isinstance(kind, type) and frameworks.of(kind).name != "python":
        return frameworks.of(kind)
    own = declared([stage])
    if any(parameter.required for parameter in own):
        return frameworks.of(object)
    return frameworks.of(type(steps.build(pipeline, {parameter.name: parameter.default for parameter in own})))


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
