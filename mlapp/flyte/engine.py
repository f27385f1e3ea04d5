"""The engine that uses flytekit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec

from mlapp.errors import MlappError, UsageError, suggest_nearest
from mlapp.flyte import (
    app_source,
    file_transfer,
    inputs,
    local_run,
    run_outputs,
    runs,
    schedules,
    task_bodies,
    task_image,
)
from mlapp.flyte import registration as register
from mlapp.flyte.app_source import Source
from mlapp.flyte.connection import Connection
from mlapp.flyte.errors import RunFailedError
from mlapp.flyte.failures import explain_failure
from mlapp.flyte.interface import Engine, Registration, Run, ScheduleState, TrialResult, Trials, Workflow
from mlapp.flyte.run_pods import RunPods
from mlapp.flyte.run_stages import split_run_stage_names
from mlapp.flyte.task_graph import TUNING, get_task_graph
from mlapp.flyte.trial import Trial
from mlapp.flyte.workflow import SPLITS, split_workflow
from mlapp.project import Project
from mlapp.reporting import Reporter
from mlapp.store import ModelVersion
from mlapp.temporary_folders import open_temporary_folder
from mlapp.tuning import list_searchable_spaces

PLACEHOLDER_IMAGE = "built-when-applied:new"
"""The image in the documents of a dry run. flytekit requires a tag."""


class FlytekitEngine(Engine):
    """Runs the app of a project on the Flyte instance in flytekit's configuration."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.connection = Connection(project.settings.flyte)

    @cached_property
    def source(self) -> Source:
        return app_source.make_flyte_app_source(self.project)

    @property
    def place(self) -> str:
        settings = self.connection.settings
        return f"{self.connection.endpoint}, project {settings.project}, domain {settings.domain}"

    def run_here(self, parameters: Mapping[str, Any], progress: Reporter) -> ModelVersion:
        return local_run.train_locally(self.source, parameters, self.project.store, progress=progress)

    def render_documents(self, image: str | None) -> list[dict[str, Any]]:
        known_image = image or self.project.settings.flyte.image
        return register.render_documents(self.project, known_image or PLACEHOLDER_IMAGE)

    def build_image(self, progress: Reporter) -> str:
        if not self.project.settings.flyte.image:  # report errors before minutes of building
            self.connection.call_client(self.connection.client.get_control_plane_version)
            register.compile_app_for_registration(self.source)
        return task_image.choose_task_image(self.project, progress)

    def register_project(self, image: str, progress: Reporter) -> Registration:
        return register.register_app(self.connection, self.project, image, progress)

    def deploy_schedules(self, registration: Registration, progress: Reporter) -> None:
        register.deploy_schedules(self.connection, self.project, registration.version, progress)

    def start_run(
        self,
        workflow: Workflow,
        parameters: Mapping[str, Any],
        registration: Registration,
        *,
        version: ModelVersion | None = None,
        trials: Trials | None = None,
        tuning: Mapping[str, Any] | None = None,
        data_of: str | None = None,
        run_id: str | None = None,
    ) -> Run:
        workflow_inputs = (
            get_task_graph(self.source).list_task_inputs("batch")
            if workflow == "predict"
            else get_task_graph(self.source).inputs
        )
        if workflow == "tune":  # each trial provides the searched parameters
            parameters = {
                **{space.name: space.example for space in list_searchable_spaces(self.source.app, parameters)},
                **parameters,
            }
        values = inputs.encode_inputs(workflow_inputs, parameters)
        kinds = {input.name: input.kind for input in workflow_inputs}
        if version is not None:
            values["model"] = _make_optional_folder_literal(self._upload_version_for_engine(version))
        if trials is not None:
            kinds["trials"] = list[str]
            values["trials"] = [
                msgspec.json.encode(Trial(dict(trial_parameters), trials.folds, trials.seed)).decode()
                for trial_parameters in trials.parameters
            ]
            data_of = trials.data_of
        if data_of is not None and (
            split_workflow_of_data := split_workflow(self.source, "tune" if trials else "train")
        ):
            register.register_workflow(self.connection, self.project, registration.version, split_workflow_of_data)
            values[SPLITS] = run_outputs.fetch_run_output(self.connection, data_of, SPLITS)
            workflow = "tune_split" if trials else "train_split"
        if tuning is not None:
            kinds[TUNING] = str
            values[TUNING] = msgspec.json.encode(tuning).decode()
        name = f"{self.source.app.name}.{workflow}"
        at_once = None if trials is None else trials.at_once
        run = runs.start_run(self.connection, name, registration.version, values, kinds, at_once=at_once, run_id=run_id)
        return Run(run, name, registration.version, "queued", self.connection.console_url(run))

    def follow_run(self, run: str, on_change: Callable[[Run], None], progress: Reporter = lambda text: None) -> Run:
        return runs.follow_run(self.connection, run, on_change, progress=progress)

    def fetch_model(self, run: str, *, schedule: str | None = None) -> ModelVersion:
        state = schedules.find_schedule(self.connection, self.project.name, schedule) if schedule else None
        promote_if = state.promote_if if state else ""
        return run_outputs.fetch_model(self.connection, run, self.project.store, self.project.name, promote_if)

    def fetch_predictions(self, run: str) -> Any:
        return run_outputs.fetch_predictions(self.connection, run)

    def fetch_trial_results(self, run: str) -> list[TrialResult | None]:
        return run_outputs.fetch_trial_results(self.connection, run)

    def list_logs(self, run: str) -> list[tuple[str, str]]:
        return runs.list_logs(self.connection, run)

    def read_logs(self, run: str) -> Iterator[tuple[str, str]]:
        pods = RunPods.connect(self.connection.settings)
        for pod, text in pods.read_logs(run) if pods else ():
            yield " + ".join(split_run_stage_names(pod.node)) or pod.name, text

    def list_run_kill_reasons(self, run: str) -> list[str]:
        pods = RunPods.connect(self.connection.settings)
        return sorted({pod.reason for pod in pods.list_pods(run) if pod.reason != "Completed"} - {""}) if pods else []

    def list_runs(self, *, limit: int = 20, schedule: str | None = None) -> Sequence[Run]:
        recent_runs = runs.list_recent_runs(self.connection, self.project.name, limit=limit, schedule=schedule)
        if (
            schedule
            and not recent_runs
            and schedules.find_schedule(self.connection, self.project.name, schedule) is None
        ):
            raise self._make_unknown_schedule_error(schedule)
        return recent_runs

    def read_run(self, run: str) -> Run:
        return runs.read_run(self.connection, run)

    def explain_failure(self, run: Run) -> RunFailedError:
        return explain_failure(run)

    def abort_run(self, run: str, reason: str) -> None:
        runs.abort_run(self.connection, run, reason)

    def recover(self, run: str) -> Run:
        return self.read_run(runs.recover_run(self.connection, run))

    def list_schedules(self) -> Sequence[ScheduleState]:
        states = schedules.list_schedule_states(self.connection, self.source)
        if not any(state.version for state in states):
            self.connection.check_project()
        return states

    def deployed_schedules(self) -> Sequence[ScheduleState]:
        states = schedules.list_deployed_schedules(self.connection, self.project.name)
        if not states:
            self.connection.check_project()
        return states

    def switch_schedule(self, name: str, active: bool) -> ScheduleState:
        state = schedules.switch_schedule(self.connection, self.project.name, name, active)
        if state is None:
            raise self._make_unknown_schedule_error(name)
        return state

    def list_versions(self) -> list[tuple[str, datetime]]:
        versions = schedules.list_schedule_versions(self.connection, f"{self.project.name}.train")
        if not versions:
            self.connection.check_project()
        return versions

    def active_version(self) -> str | None:
        plans = schedules.list_active_schedules(self.connection, self.project.name)
        return next((str(plan.id.version) for plan in plans.values()), None)

    def activate_version(self, version: str, progress: Reporter) -> list[str]:
        return schedules.move_schedules(self.connection, self.project.name, version, progress)

    def deactivate_schedules(self) -> list[str]:
        return schedules.stop_schedules(self.connection, self.project.name)

    def _make_unknown_schedule_error(self, name: str) -> UsageError:
        """The error for an unknown schedule: it is not deployed, or, if the code can be imported, not declared."""
        deployed = [state.name for state in self.deployed_schedules()]
        try:
            declared = list(self.source.app.schedules)
        except MlappError:
            declared = []
        if name in declared:
            return UsageError(f"Schedule '{name}' is not on the cluster.", "Deploy it: mlapp deploy --target flyte.")
        names = dict.fromkeys([*declared, *deployed])
        return UsageError(
            f"App '{self.project.name}' has no schedule '{name}'.{suggest_nearest(name, names)}",
            f"It has: {', '.join(names) or 'none'}.",
        )

    def _upload_version_for_engine(self, version: ModelVersion) -> Any:
        """Upload a version of the store for the input `model`, as a folder in Flyte's object store."""
        from flytekit.models.core.types import BlobType
        from flytekit.models.literals import Blob, BlobMetadata, Literal, Scalar

        manifest = msgspec.json.encode(version.manifest)
        root = hashlib.sha256(manifest).hexdigest()[:32]
        with open_temporary_folder("flyte") as folder:
            file = folder / task_bodies.MANIFEST
            file.write_bytes(manifest)
            files = {f"{task_bodies.FILES}/{name}": version.files / name for name in version.manifest.files}
            urls = file_transfer.upload_files(self.connection, {task_bodies.MANIFEST: file, **files}, root)
        url = urls[task_bodies.MANIFEST].removesuffix(f"/{task_bodies.MANIFEST}")
        kind = BlobType(format="", dimensionality=BlobType.BlobDimensionality.MULTIPART)
        return Literal(scalar=Scalar(blob=Blob(BlobMetadata(kind), url)))


def _make_optional_folder_literal(folder: Any) -> Any:
    """A folder's literal for an input of type `FlyteDirectory | None`."""
    from flytekit.models.literals import Literal, Scalar, Union
    from flytekit.models.types import LiteralType, TypeStructure

    kind = LiteralType(blob=folder.scalar.blob.metadata.type, structure=TypeStructure(tag="FlyteDirectory"))
    return Literal(scalar=Scalar(union=Union(folder, kind)))
